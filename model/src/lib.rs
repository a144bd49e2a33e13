//! BLIP-2 as Burn modules.
