//! Files that stand in the place of others: what a download leaves where the real file was not fetched. The
//! crate `model` has the same for checkpoints; neither depends on the other.

/// The start of a Git LFS pointer, by the versions of its format.
const POINTERS: [&[u8]; 2] =
    [b"version https://git-lfs.github.com/spec/", b"version https://hawser.github.com/spec/"];

/// The start of a page, in lower case.
const PAGES: [&[u8]; 3] = [b"<!doctype html", b"<html", b"<head"];

/// The start of a message of a store in XML, such as "access denied", in lower case.
const MESSAGES: [&[u8]; 2] = [b"<?xml", b"<error>"];

/// Number of bytes that decide.
const START: usize = 1024;

/// What a file is instead of its format, and what to do, from its first bytes; `None` if it is none of these.
pub fn stand_in(bytes: &[u8]) -> Option<&'static str> {
    let start = bytes.get(..START.min(bytes.len()))?;
    let start = start.strip_prefix(b"\xef\xbb\xbf").unwrap_or(start).trim_ascii_start();
    let is_one_of = |known: &[&[u8]]| {
        known
            .iter()
            .any(|known| start.get(..known.len()).is_some_and(|start| start.eq_ignore_ascii_case(known)))
    };
    if is_one_of(&POINTERS) {
        Some("this is a Git LFS pointer: fetch the real file, for example with `git lfs pull`")
    } else if is_one_of(&PAGES) {
        Some("this is an HTML page: download the file itself, by its direct link or after a login")
    } else if is_one_of(&MESSAGES) {
        Some("this is an XML message of a server, not the file: download the file itself")
    } else {
        None
    }
}

#[cfg(test)]
mod tests {
    use super::*;

    const POINTER: &[u8] =
        b"version https://git-lfs.github.com/spec/v1\noid sha256:4cac19622fc3\nsize 2336927\n";

    #[test]
    fn pointers_and_pages_are_recognised_and_real_files_are_not() {
        for page in [
            "<!DOCTYPE html><html>",
            "\n  <html lang=\"en\">",
            "\u{feff}<!doctype HTML>",
            "<?xml version=\"1.0\"?><Error>",
        ] {
            assert!(stand_in(page.as_bytes()).is_some(), "{page}");
        }
        assert!(stand_in(POINTER).unwrap().contains("Git LFS pointer"));
        for real in
            [&b"{\"model_type\": \"blip-2\"}"[..], b"PK\x03\x04", b"", b"\x80\x02", b"#version: 0.2\na b"]
        {
            assert_eq!(stand_in(real), None);
        }
    }
}
