//! Views of clips in training: which frames, which crop and whether it is mirrored, drawn at random.

use crate::augment::{Augment, CropFrom};
use crate::datasets::Clip;
use crate::error::{Error, Result};
use crate::preprocess::Preprocess;
use crate::random::RandomStream;
use crate::video::{FrameRequest, Frames, decode};
use serde::Serialize;

/// How the views of a clip are drawn.
#[derive(Clone, Debug, PartialEq, Serialize)]
pub struct ViewRequest {
    /// The frames, with the model's size. Its seed is that of the run.
    pub request: FrameRequest,
    /// The crop and the flip; without it a view has whole frames.
    pub augment: Option<Augment>,
}

impl ViewRequest {
    /// Checks the request; returns the size of a view.
    ///
    /// # Errors
    /// [`Error::Setting`] with the first value out of range.
    pub fn check(&self) -> Result<u32> {
        self.request.check()?;
        self.augment.iter().try_for_each(Augment::validate)?;
        self.request.size.ok_or_else(|| Error::setting("size", "a number of pixels", "none"))
    }

    /// Draws the view that is named by the run's seed, the epoch, the clip and the number of the example
    /// among those of the clip. The same names give the same view, in any order and on any thread.
    ///
    /// # Shapes
    /// returns `[f, size, size, 3]`
    ///
    /// # Errors
    /// As [`decode`]; a request without a size.
    pub fn draw(&self, clip: &Clip, epoch: u64, example: u64) -> Result<Frames> {
        let size = self.check()?;
        let name = format!("view of {}, example {example}", clip.id);
        let mut random = RandomStream::new(self.request.seed, &name, epoch);
        let request = FrameRequest { seed: random.seed(), ..self.request };
        let Some(augment) = &self.augment else { return decode(&clip.path, &request) };
        let whole = match augment.crop_from {
            CropFrom::Frame => None,
            CropFrom::Square => Some(size),
        };
        let frames = decode(&clip.path, &FrameRequest { size: whole, ..request })?;
        let crop = augment.draw(frames.height, frames.width, random.seed());
        let resizing = augment.resizing.unwrap_or(self.request.resizing);
        crop.apply(&frames, &Preprocess { resizing, ..Preprocess::new(size) })
    }
}

#[cfg(test)]
mod tests {
    use super::*;
    use crate::datasets::Split;
    use crate::sampling::Sampling;
    use std::path::{Path, PathBuf};

    fn clip(path: PathBuf) -> Clip {
        Clip { id: "film".into(), path, captions: vec![], questions: vec![], split: Split::Train }
    }

    /// An animation of 24 frames of 32 x 18 pixels, in which every frame and every column is different.
    fn film(folder: &Path) -> Clip {
        let path = folder.join("film.gif");
        let mut encoder = image::codecs::gif::GifEncoder::new(std::fs::File::create(&path).unwrap());
        for frame in 0..24 {
            let picture =
                image::RgbaImage::from_fn(32, 18, |x, _| image::Rgba([x as u8 * 8, frame * 10, 0, 255]));
            encoder.encode_frame(image::Frame::new(picture)).unwrap();
        }
        clip(path)
    }

    /// A picture of 32 x 18 pixels (16:9), whose red grows by 8 a column.
    fn picture(folder: &Path) -> Clip {
        let path = folder.join("picture.png");
        image::RgbImage::from_fn(32, 18, |x, _| image::Rgb([x as u8 * 8, 0, 0])).save(&path).unwrap();
        clip(path)
    }

    fn views(seed: u64, augment: Option<Augment>) -> ViewRequest {
        let request = FrameRequest { sampling: Sampling::HeadTail, seed, ..FrameRequest::uniform(4, 16) };
        ViewRequest { request, augment }
    }

    #[test]
    fn seeds_epochs_and_examples_have_views_of_their_own() {
        let folder = tempfile::tempdir().unwrap();
        let clip = film(folder.path());
        for augment in [None, Some(Augment::default())] {
            let draw =
                |seed, epoch, example| views(seed, augment.clone()).draw(&clip, epoch, example).unwrap().data;
            let names = [(1, 1, 0), (2, 1, 0), (1, 2, 0), (1, 1, 1), (1, 1, 2), (1, 2, 1)];
            let drawn = names.map(|(seed, epoch, example)| draw(seed, epoch, example));
            for (at, view) in drawn.iter().enumerate() {
                assert!(!drawn[..at].contains(view), "{:?} is equal to an earlier view", names[at]);
            }
            assert_eq!(draw(1, 1, 0), drawn[0]);
        }
    }

    /// The widest crop of each kind of source, as the share of the frame's columns that it shows.
    #[test]
    fn only_a_crop_of_the_square_can_show_the_full_width_of_a_wide_frame() {
        let folder = tempfile::tempdir().unwrap();
        let clip = picture(folder.path());
        let widest = |crop_from| {
            let augment = Augment { flip: 0.0, crop_from, ..Augment::default() };
            let columns = |example| {
                let frames = views(7, Some(augment.clone())).draw(&clip, 1, example).unwrap();
                let row = frames.iter().next().unwrap()[..16 * 3].to_vec();
                f64::from(row[15 * 3]) - f64::from(row[0])
            };
            (0..200).map(columns).fold(0.0, f64::max) / (31.0 * 8.0)
        };
        let (frame, square) = (widest(CropFrom::Frame), widest(CropFrom::Square));
        // 18 rows at the widest ratio of 4:3 are 24 of 32 columns
        assert!(frame < 0.8, "{frame}");
        assert!(square > 0.93, "{square}");
    }

    #[test]
    fn the_crop_has_its_own_rule_of_resizing_where_it_is_given() {
        let folder = tempfile::tempdir().unwrap();
        let clip = picture(folder.path());
        let draw = |resizing| {
            let augment = Augment { crop_from: CropFrom::Square, resizing, ..Augment::default() };
            views(7, Some(augment)).draw(&clip, 1, 0).unwrap().data
        };
        use crate::video::Resizing::{Blip, Lavis};
        assert_eq!(draw(None), draw(Some(Blip)));
        assert_ne!(draw(None), draw(Some(Lavis)));
    }

    #[test]
    fn impossible_requests_are_named() {
        let message = |views: ViewRequest| views.check().unwrap_err().to_string();
        let mut none = views(0, None);
        assert_eq!(none.check().unwrap(), 16);
        none.request.size = None;
        assert!(message(none).starts_with("size"));
        assert!(message(views(0, Some(Augment { flip: 2.0, ..Augment::default() }))).starts_with("flip"));
    }
}
