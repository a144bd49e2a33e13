//! Caption metrics: captions in, scores out.
