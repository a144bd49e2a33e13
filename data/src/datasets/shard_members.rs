//! Which members of a webdataset shard are files of pairs.
//!
//! Passed over are members that belong to no pair: those that macOS adds (`._name`, `.DS_Store`,
//! `__MACOSX/`), other hidden files, extended headers that old programs unpack as files (`PaxHeaders/`),
//! webdataset's own (`__name__`), documents such as `README.md`, and files that are no image and no text.

use super::source::is_macs;

const IMAGES: [&str; 6] = ["jpg", "jpeg", "png", "gif", "webp", "bmp"];

/// Beginnings of the names of documents, in lower case; they describe a shard and are no pair.
const DOCUMENTS: [&str; 9] =
    ["readme", "license", "licence", "copying", "notice", "citation", "changelog", "authors", "manifest"];

/// The use of a member.
pub(super) enum Member {
    Image,
    Caption,
    Sidecar,
}

/// Stem and use of a member; `None` for one of no pair.
pub(super) fn member(name: &str) -> Option<(&str, Member)> {
    let folder = name.rfind('/').map_or(0, |slash| slash + 1);
    let file = &name[folder..];
    let is_header = |part: &str| part == "PaxHeader" || part.starts_with("PaxHeaders");
    let lower = file.to_ascii_lowercase();
    let is_document = |beginning: &str| {
        let rest = lower.strip_prefix(beginning);
        rest.is_some_and(|rest| !rest.starts_with(|c: char| c.is_alphanumeric()))
    };
    let is_meta = file.starts_with("__") && file.split('.').next().is_some_and(|stem| stem.ends_with("__"));
    if is_macs(name)
        || file.starts_with('.')
        || is_meta
        || name.split('/').any(is_header)
        || DOCUMENTS.iter().any(|beginning| is_document(beginning))
    {
        return None;
    }
    // Webdataset's rule: the stem ends at the first dot of the file's name.
    let dot = file.find('.')?;
    let member = match &lower[dot + 1..] {
        "txt" => Member::Caption,
        "json" => Member::Sidecar,
        extension if IMAGES.contains(&extension) => Member::Image,
        _ => return None,
    };
    Some((&name[..folder + dot], member))
}
