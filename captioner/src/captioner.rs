//! Captions of video files, from a checkpoint directory.

use std::path::{Path, PathBuf};
use std::sync::Arc;

use burn::tensor::Device;
use data::loader::{LoadError, Order, Plan, Position, Prefetch};
use data::preprocess::Preprocess;
use data::random::RandomStream;
use data::video::{FrameRequest, Frames, decode};
use model::Blip2;
use model::checkpoint::Precision;
use model::generate::{GenerateConfig, Sample, Search};

use crate::{Caption, CaptionerError, Change, Checkpoint, Context, HostVisual, Overrides, Settings};

/// How a checkpoint is opened and used.
#[derive(Debug, Clone)]
pub struct Options {
    /// Where to compute; the CPU by default.
    pub device: Device,
    /// Types of the weights; f32 by default.
    pub precision: Precision,
    /// Changes to the checkpoint's configuration; none by default.
    pub overrides: Overrides,
    /// Frames, prompt and generation; by default those that the checkpoint remembers, else
    /// [`Settings::default`].
    pub settings: Option<Settings>,
    /// Draws tokens instead of a beam search, one caption after the other.
    pub sample: Option<Sample>,
    /// Captions per clip.
    pub captions: usize,
    /// Clips per batch.
    pub batch_size: usize,
}

impl Default for Options {
    fn default() -> Self {
        Self {
            device: Device::flex(),
            precision: Precision::default(),
            overrides: Overrides::default(),
            settings: None,
            sample: None,
            captions: 1,
            batch_size: 8,
        }
    }
}

/// A model that captions video, GIF and image files.
#[derive(Debug)]
pub struct Captioner {
    /// The weights.
    pub model: Blip2,
    /// Tokenizer, prompt and generation settings.
    pub context: Context,
    changes: Vec<Change>,
    settings: Settings,
    batch_size: usize,
}

/// The captions of a file, or why it has none.
#[derive(Debug)]
pub struct ClipCaptions {
    /// The file.
    pub path: PathBuf,
    /// Its captions, best first.
    pub captions: Result<Vec<Caption>, data::Error>,
}

impl Captioner {
    /// Opens a checkpoint.
    ///
    /// # Errors
    /// When a file is missing or damaged, or the settings do not fit each other.
    pub fn open(directory: impl AsRef<Path>, options: Options) -> Result<Self, CaptionerError> {
        let directory = directory.as_ref();
        let Options { device, precision, mut overrides, settings, sample, captions, batch_size } = options;
        let own = || Ok::<_, CaptionerError>(Settings::of_checkpoint(directory)?.unwrap_or_default());
        let settings = settings.map_or_else(own, Ok)?;
        overrides.frames = overrides.frames.max(settings.frames.count);
        let opened = Checkpoint::open(directory, &overrides, precision, &device)?;
        let generate = settings.generate.for_model(opened.end_tokens.clone(), &opened.constraints);
        let generate = match sample {
            Some(sample) => GenerateConfig { num_beams: 1, search: Search::Sample(sample), ..generate },
            None => generate,
        };
        let generate = GenerateConfig { num_return_sequences: captions, ..generate };
        let context = opened.context(&settings.text.prompt, generate)?;
        context.check_length(settings.frames.count)?;
        let Checkpoint { model, changes, .. } = opened;
        Ok(Self { model, context, changes, settings, batch_size: batch_size.max(1) })
    }

    /// Frames, prompt and generation.
    pub fn settings(&self) -> &Settings {
        &self.settings
    }

    /// Clips of a batch.
    pub fn batch_size(&self) -> usize {
        self.batch_size
    }

    /// Values of the checkpoint's configuration that the options changed.
    pub fn changes(&self) -> &[Change] {
        &self.changes
    }

    /// Captions files, in order. A file that cannot be decoded does not stop the others.
    ///
    /// # Errors
    /// When the device or the tokenizer fails, or a thread cannot be started.
    pub fn caption<P: AsRef<Path>>(&self, paths: &[P]) -> Result<Vec<ClipCaptions>, CaptionerError> {
        let mut all = Vec::with_capacity(paths.len());
        self.caption_each(paths, |clip| all.push(clip))?;
        Ok(all)
    }

    /// As [`caption`](Self::caption), for long lists: hands out each file's captions as soon as its batch is
    /// finished.
    ///
    /// # Errors
    /// As [`caption`](Self::caption).
    pub fn caption_each<P: AsRef<Path>>(
        &self,
        paths: &[P],
        mut on_clip: impl FnMut(ClipCaptions),
    ) -> Result<(), CaptionerError> {
        let paths: Vec<PathBuf> = paths.iter().map(|path| path.as_ref().to_owned()).collect();
        let mut decoded = self.decode(&paths)?.enumerate();
        let preprocess = self.preprocess();
        for batch in paths.chunks(self.batch_size) {
            let (mut bytes, mut streams, mut failures) = (Vec::new(), Vec::new(), Vec::new());
            for (place, clip) in decoded.by_ref().take(batch.len()) {
                match clip? {
                    Ok(pixels) => {
                        preprocess.channels_first(&pixels.data, &mut bytes);
                        streams.push(place as u64);
                        failures.push(None);
                    }
                    Err(error) => failures.push(Some(error)),
                }
            }
            let mut captions = self.generate(bytes, streams)?.into_iter();
            for (path, failure) in batch.iter().zip(failures) {
                let captions = match failure {
                    Some(error) => Err(error),
                    None => Ok(captions.next().unwrap_or_default()),
                };
                on_clip(ClipCaptions { path: path.clone(), captions });
            }
        }
        Ok(())
    }

    /// Captions of clips whose pixels are one after the other, with the stream of random numbers of each.
    pub(crate) fn generate(
        &self,
        bytes: Vec<u8>,
        streams: Vec<u64>,
    ) -> Result<Vec<Vec<Caption>>, CaptionerError> {
        if streams.is_empty() {
            return Ok(Vec::new());
        }
        let visual = HostVisual::pixels(bytes, streams.len(), &self.preprocess());
        self.context.generate(&self.model, visual, None, streams)
    }

    /// From frames to what the model reads.
    pub(crate) fn preprocess(&self) -> Preprocess {
        self.settings.frames.preprocess(self.context.config.vision_config.image_size)
    }

    /// Frames of each file, decoded ahead while captions are generated: at most two batches, and
    /// no more threads than cores.
    fn decode(
        &self,
        paths: &[PathBuf],
    ) -> Result<impl Iterator<Item = Result<DecodedClip, LoadError<data::Error>>> + use<>, CaptionerError>
    {
        let request = self.settings.frames.request(self.preprocess().size);
        let plan = Plan::new(paths.len(), 1, Order::Sequential);
        let ahead = 2 * self.batch_size;
        let workers = data::threads().get().min(ahead);
        let paths = paths.to_vec();
        let decode = move |_epoch: u64, items: &[usize]| {
            let path = &paths[items[0]];
            let name = path.file_stem().unwrap_or_default().to_string_lossy();
            let request = FrameRequest { seed: RandomStream::new(request.seed, &name, 0).seed(), ..request };
            Ok(decode(path, &request))
        };
        let start = Position { epoch: 1, batch: 0 };
        Ok(plan.load(start, Prefetch { workers, ahead }, Arc::new(decode))?)
    }
}

/// The frames of a file, or why it cannot be decoded.
type DecodedClip = data::Result<Frames>;
