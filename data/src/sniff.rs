//! Names files that stand in for another one: pointers of Git LFS and git-annex, and pages of a web server
//! that were saved in place of a download.

/// Bytes from a file's start that [`stand_in`] needs.
pub const HEAD: usize = 512;

/// What a file is instead of the expected one, and what to do, as the end of a sentence; `None` for any other
/// file. `head` is the start of the file, [`HEAD`] bytes where it has them.
#[must_use]
pub fn stand_in(head: &[u8]) -> Option<&'static str> {
    const LFS: [&[u8]; 2] = [b"version https://git-lfs.github.com/", b"version https://hawser.github.com/"];
    let head = crate::encoding::without_marks(&head[..head.len().min(HEAD)]).trim_ascii_start();
    let starts =
        |tag: &str| head.get(..tag.len()).is_some_and(|start| start.eq_ignore_ascii_case(tag.as_bytes()));
    if LFS.iter().any(|start| head.starts_with(start)) {
        return Some("this is a Git LFS pointer, not the file: fetch the real file with `git lfs pull`");
    }
    if starts("/annex/objects/") {
        return Some("this is a git-annex pointer, not the file: fetch the real file with `git annex get`");
    }
    let is_error = starts("<?xml") && head.windows(7).any(|part| part == b"<Error>");
    if is_error || starts("<!doctype html") || starts("<html") || starts("<head") {
        return Some(
            "this is a page of a web server, not the file: the download failed or needs a login; fetch it again",
        );
    }
    None
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn pointers_and_web_pages_are_named() {
        let named = |head: &str| stand_in(head.as_bytes()).unwrap_or_default();
        let pointer = "version https://git-lfs.github.com/spec/v1\noid sha256:4d7a\nsize 12345\n";
        assert!(named(pointer).contains("Git LFS"));
        assert!(named("/annex/objects/SHA256E-s31390--f50d7ac.json\n").contains("git-annex"));
        for page in [
            "\u{feff}\n <!DOCTYPE HTML PUBLIC \"-//W3C//DTD\">",
            "<HTML><body>",
            "<head>\n",
            "<?xml version='1.0'?>\n<Error><Code>AccessDenied</Code></Error>",
        ] {
            assert!(named(page).contains("web server"), "{page}");
        }
        for file in ["", "version 1", "[1]", "{\"a\": 1}", "<?xml version='1.0'?><mpd/>", "a.mp4\t<html>"] {
            assert_eq!(stand_in(file.as_bytes()), None, "{file}");
        }
    }
}
