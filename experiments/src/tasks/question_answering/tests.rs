//! Questions about the tiny world and of the published files, from annotation to answer.

#![allow(clippy::unwrap_used)] // what fails in a helper fails the test

use std::path::{Path, PathBuf};

use burn::tensor::Device;
use captioner::{FrameConfig, FrameSource};
use data::datasets::{DataSet, annotations};
use data::sampling::Sampling;
use data::text::QUESTION_PROMPT;
use data::tiny_world::config::{ClipCounts, PairCounts};
use data::tiny_world::{WorldConfig, vocabulary};
use model::lm::llama::LlamaConfig;
use model::lm::opt::OptConfig;
use model::lm::t5::T5Config;
use model::qformer::QFormerConfig;
use model::vit::VitConfig;
use serde_json::{Value, json};
use train::dashboard::Dashboard;
use train::processes::SingleProcess;
use train::{CrossEntropy, Fit, Metrics, Prediction, Scorer as _, SelectionMetric, TrainConfig, fit};

use super::*;
use crate::text::metrics::ACCURACY;

const SIZE: usize = 16;

fn world(cache: &Path) -> World {
    let config = WorldConfig {
        clips: ClipCounts { train: 6, validate: 3, test: 3 },
        pairs: PairCounts { train: 2, validate: 2 },
        size: SIZE as u32,
        shortest: 8,
        longest: 8,
        ..WorldConfig::default()
    };
    World::open_or_make(&config, cache, &|_| {}).unwrap()
}

fn words() -> Arc<Tokenizer> {
    Arc::new(Tokenizer::word_level(&vocabulary()).unwrap())
}

/// Two frames of every clip, in memory or, where they are drawn anew each epoch, read when they are asked
/// for.
fn videos(clips: &[&Clip], train_sampling: Option<Sampling>, cache: &Path) -> Videos {
    let sampling = Sampling::Middle;
    let config = FrameConfig { count: 2, sampling, train_sampling, ..FrameConfig::default() };
    let frames = FrameSource::open(clips, &config, SIZE, Some(1), cache, &|_| {}).unwrap();
    Videos::new(Arc::new(frames), config, SIZE)
}

/// One language model of each kind, with the tiny world's words.
fn language_models() -> [LanguageModelConfig; 3] {
    let vocab_size = words().vocabulary_size();
    [
        LanguageModelConfig::T5(T5Config {
            vocab_size,
            d_model: 16,
            d_kv: 8,
            d_ff: 32,
            num_layers: 1,
            num_decoder_layers: 1,
            num_heads: 2,
            ..T5Config::default()
        }),
        LanguageModelConfig::Opt(OptConfig {
            vocab_size,
            hidden_size: 16,
            num_hidden_layers: 1,
            num_attention_heads: 2,
            ffn_dim: 32,
            max_position_embeddings: 64,
            eos_token_id: Some(1),
            ..OptConfig::default()
        }),
        LanguageModelConfig::Llama(LlamaConfig {
            vocab_size,
            hidden_size: 16,
            intermediate_size: 32,
            num_hidden_layers: 1,
            num_attention_heads: 2,
            max_position_embeddings: 64,
            eos_token_id: Some(1),
            ..LlamaConfig::default()
        }),
    ]
}

fn model_config(text_config: LanguageModelConfig) -> Blip2Config {
    let mut config = Blip2Config {
        vision_config: VitConfig {
            hidden_size: 16,
            intermediate_size: 32,
            num_hidden_layers: 1,
            num_attention_heads: 2,
            image_size: SIZE,
            patch_size: 8,
            ..VitConfig::default()
        },
        qformer_config: QFormerConfig {
            hidden_size: 16,
            num_hidden_layers: 1,
            num_attention_heads: 2,
            intermediate_size: 32,
            encoder_hidden_size: 16,
            ..QFormerConfig::default()
        },
        text_config,
        num_query_tokens: 3,
        ..Blip2Config::default()
    };
    config.set_dropout(0.0);
    config
}

fn question(id: &str, text: &str, answer: &str) -> Question {
    Question { id: id.into(), text: text.into(), answer: answer.into() }
}

fn clip(questions: Vec<Question>) -> Clip {
    Clip {
        id: "video7".into(),
        path: "video7.mp4".into(),
        captions: Vec::new(),
        questions,
        split: Split::Test,
    }
}

#[test]
fn two_steps_of_instruction_tuning_and_answers_of_every_language_model() {
    let cache = tempfile::tempdir().unwrap();
    let world = world(cache.path());
    let set = world.questions().unwrap();
    let (training, validation) = (set.split(Split::Train), set.split(Split::Validate));
    for text_config in language_models() {
        let config = model_config(text_config);
        let answering = AnswerConfig::default();
        let reader = Reader::new(answering.clone(), &config, words(), None).unwrap();
        let learned =
            Questions::new(videos(&training, None, cache.path()), &training, reader.clone(), Some(1))
                .unwrap();
        let asked =
            Questions::new(videos(&validation, None, cache.path()), &validation, reader, None).unwrap();
        let questions = asked.len();
        assert_eq!(questions, validation.iter().map(|clip| clip.questions.len()).sum::<usize>());
        let scorer = AnswerScorer::new(Some(&world), &validation).unwrap();

        let device = Device::flex();
        device.seed(1);
        let blip2 = config.init(&device);
        model::parameters::draw(&blip2);
        let context = Context {
            config,
            generate: GenerateConfig { end_tokens: vec![words().end()], ..answering.generate },
            tokenizer: words(),
            qformer_tokenizer: None,
            prompt: PromptIds::default(),
        };
        let run = tempfile::tempdir().unwrap();
        let ids = asked.asked.iter().map(|(_, question)| question.id.clone()).collect();
        let settings = Fit {
            config: TrainConfig {
                steps: Some(2),
                evaluate_every: Some(2),
                batch_size: 4,
                warmup_steps: 0,
                select: SelectionMetric::parse(ACCURACY),
                ..TrainConfig::default()
            },
            objective: CrossEntropy::new(context, 0.0),
            train: Arc::new(learned),
            validation: Some(Validation {
                split: Split::Validate,
                ids,
                examples: Arc::new(asked),
                scorer: Some(Arc::new(scorer)),
                batch_size: 4,
            }),
            directory: run.path().to_path_buf(),
            device,
            seed: 1,
            label: "answering".into(),
            settings: json!({}),
            stop: Arc::default(),
            dashboard: Dashboard::Silent,
            processes: Arc::new(SingleProcess),
        };
        let outcome = fit(blip2, settings).unwrap();
        assert_eq!((outcome.steps, outcome.interrupted), (2, false));
        let metrics = &outcome.history[0].validation;
        assert!(metrics.get(ACCURACY).is_some_and(|accuracy| (0.0..=1.0).contains(&accuracy)), "{metrics:?}");
        assert!(outcome.history[0].loss.is_finite());

        let written = std::fs::read_dir(run.path().join("predictions")).unwrap().next().unwrap().unwrap();
        let written: Vec<Value> = serde_json::from_slice(&std::fs::read(written.path()).unwrap()).unwrap();
        let ids = validation.iter().flat_map(|clip| &clip.questions).map(|question| question.id.clone());
        assert!(written.iter().map(|answer| answer["question_id"].to_string()).eq(ids));
        assert!(written.iter().all(|answer| answer["answer"].is_string()));
    }
}

#[test]
fn prompts_are_padded_where_the_language_model_does_not_continue() {
    let asked = [question("1", "Is there a ring?", "yes"), question("2", "what is the main object?", "ring")];
    let ids = |text: &str| words().encode(text, 100).unwrap();
    let prompts =
        ["question: is there a ring? short answer:", "question: what is the main object? short answer:"];
    let prompts = prompts.map(|prompt| words().encode_as_published(prompt, 100).unwrap()).to_vec();
    for text_config in language_models() {
        let is_t5 = matches!(text_config, LanguageModelConfig::T5(_));
        let reader = Reader::new(AnswerConfig::default(), &model_config(text_config), words(), None).unwrap();
        let read = reader.prompts(asked.iter().map(|question| (QUESTION_PROMPT, question))).unwrap();
        let expected = if is_t5 { HostTokens::pad(&prompts) } else { HostTokens::pad_start(&prompts) };
        assert_eq!(read, HostPrompts { text: Some(expected), instruction: None });
        assert_eq!(reader.targets(asked.iter()).unwrap(), HostTokens::pad(&[ids("yes"), ids("ring")]));
    }
}

/// As in LAVIS, where a text processor draws a template each time that an example is read.
#[test]
fn training_draws_a_template_for_each_example_and_epoch_and_evaluation_does_not() {
    let cache = tempfile::tempdir().unwrap();
    let set = world(cache.path()).questions().unwrap();
    let clips = set.split(Split::Train);
    let [t5, ..] = language_models();
    let templates = ["what is {} ?", "answer: {}", "{}"].map(str::to_owned).to_vec();
    let config = AnswerConfig { templates: templates.clone(), ..AnswerConfig::default() };
    let reader = Reader::new(config, &model_config(t5), words(), None).unwrap();
    let questions =
        |seed| Questions::new(videos(&clips, None, cache.path()), &clips, reader.clone(), seed).unwrap();
    let drawn = |seed, epoch| {
        let questions = questions(Some(seed));
        (0..questions.len()).map(|item| questions.template(epoch, item).to_owned()).collect::<Vec<_>>()
    };
    assert_eq!(drawn(1, 1), drawn(1, 1), "the same wherever it is asked for");
    assert_ne!(drawn(1, 1), drawn(1, 2), "an epoch draws its own");
    assert_ne!(drawn(1, 1), drawn(2, 1), "and so does a seed");
    assert!(templates.iter().all(|template| drawn(1, 1).contains(template)), "{:?}", drawn(1, 1));
    let Batch::Caption { prompts, .. } = questions(Some(1)).batch(1, &[0], 0..1).unwrap() else { panic!() };
    let questions = questions(None);
    assert!((0..questions.len()).all(|item| questions.template(1, item) == QUESTION_PROMPT));
    let Batch::Caption { prompts: fixed, .. } = questions.batch(1, &[0], 0..1).unwrap() else { panic!() };
    assert_ne!(prompts, fixed, "the template is what the model reads");
}

#[test]
fn a_prompt_without_a_place_for_the_question_is_refused() {
    let config = AnswerConfig { templates: vec!["{}".into(), "Q: A:".into()], ..AnswerConfig::default() };
    assert!(config.check().unwrap_err().to_string().contains("the template \"Q: A:\" has 0 places"));
    let config = AnswerConfig { prompt: "Answer:".into(), ..AnswerConfig::default() };
    assert!(config.check().unwrap_err().to_string().contains("has 0 places"));
    let config = AnswerConfig { prompt: "{} {}".into(), ..AnswerConfig::default() };
    assert!(config.check().unwrap_err().to_string().contains("has 2 places"));
}

#[test]
fn questions_about_other_clips_or_none_are_refused() {
    let cache = tempfile::tempdir().unwrap();
    let world = world(cache.path());
    let set = world.questions().unwrap();
    let (training, test) = (set.split(Split::Train), set.split(Split::Test));
    let reader = || {
        let [t5, ..] = language_models();
        Reader::new(AnswerConfig::default(), &model_config(t5), words(), None).unwrap()
    };
    let refused = |clips: &[&Clip], shown: &[&Clip]| {
        Questions::new(videos(shown, None, cache.path()), clips, reader(), None).err().unwrap().to_string()
    };
    assert!(refused(&training, &test).contains("not of the same clips"));
    let captioned = world.videos().unwrap();
    assert!(refused(&captioned.split(Split::Test), &test).contains("nothing is asked"));
    let stranger = clip(vec![question("100000", "who?", "man")]);
    assert!(
        AnswerScorer::new(Some(&world), &[&stranger]).unwrap_err().to_string().contains("no question 100000")
    );
}

#[test]
fn answers_are_right_after_normalisation_and_reported_by_first_word() {
    let asked = vec![
        question("1", "what is the man playing?", "guitar"),
        question("2", "What is sliced?", "onion"),
        question("3", "how many people are there?", "two"),
        question("4", "is it raining?", "no"),
    ];
    let test = clip(asked);
    let scorer = AnswerScorer::new(None, &[&test]).unwrap();
    assert_eq!(scorer.names(), ["accuracy", "what", "how", "other"]);
    let metrics = scorer.score(&["The guitar.", "an apple", "2", ""].map(str::to_owned)).unwrap();
    let expected = Metrics::one(ACCURACY, 0.5).with("what", 0.5).with("how", 1.0).with("other", 0.0);
    assert_eq!(metrics, expected);
    assert!(scorer.score(&[]).unwrap_err().to_string().contains("0 answers to 4 questions"));

    let training = clip(vec![
        question("5", "what is it?", "Onion"),
        question("6", "what is it?", "onion"),
        question("7", "what is it?", "apple"),
        question("8", "where is it?", "kitchen"),
    ]);
    let chance = scorer.chance(&AnswerScorer::new(None, &[&training]).unwrap()).unwrap();
    assert_eq!(
        (chance.get(ACCURACY), chance.get("what"), chance.get("how")),
        (Some(0.25), Some(0.5), Some(0.0))
    );
}

#[test]
fn answers_are_saved_in_the_form_of_the_vqa_challenge() {
    let scorer = AnswerScorer::new(None, &[]).unwrap();
    let written = |item, caption: &str| Prediction { item, caption: caption.into(), log_probability: 0.0 };
    let results = scorer.results(&[written(1, "ring"), written(0, "yes")], &["07".into(), "12".into()]);
    assert_eq!(
        json!(results),
        json!([{"question_id": 12, "answer": "ring"}, {"question_id": "07", "answer": "yes"}])
    );
}

#[test]
fn chance_on_the_tiny_world_is_about_one_in_the_number_of_answers() {
    let cache = tempfile::tempdir().unwrap();
    let world = world(cache.path());
    let set = world.questions().unwrap();
    let training = AnswerScorer::new(Some(&world), &set.split(Split::Train)).unwrap();
    let chance = training.chance(&training).unwrap();
    for (name, share) in chance.iter() {
        assert!(share > 0.0, "{name}: the most frequent answer of training is right there now and then");
    }
    let right: Vec<String> =
        set.split(Split::Train).iter().flat_map(|clip| &clip.questions).map(|q| q.answer.clone()).collect();
    assert!(training.score(&right).unwrap().iter().all(|(_, share)| share == 1.0));
}

/// A path below `shared/data`, which is next to the checkout or where `RECAP_SHARED_DATA` says; `None` where
/// there is nothing.
fn shared(path: &str) -> Option<PathBuf> {
    let beside = || PathBuf::from(concat!(env!("CARGO_MANIFEST_DIR"), "/../../shared/data"));
    let path = std::env::var_os("RECAP_SHARED_DATA").map_or_else(beside, PathBuf::from).join(path);
    if path.exists() {
        return Some(path);
    }
    eprintln!("skipped: no shared data at {}", path.display());
    None
}

/// A tokenizer as published.
fn published_tokenizer(file: &str) -> Option<Arc<Tokenizer>> {
    Some(Arc::new(Tokenizer::open(&shared(&format!("tokenizers/{file}"))?).unwrap()))
}

#[test]
fn prompt_and_answer_are_together_what_the_published_tokenizers_make_of_the_whole_text() {
    let [t5, opt, llama] = language_models();
    let asked = question("1", "what is a person playing ?", "guitar");
    let prompt = "Question: what is a person playing ? Short Answer:";
    for (file, text_config, end) in
        [("t5/tokenizer.json", t5, ""), ("opt", opt, "\n"), ("llama/tokenizer.model", llama, "")]
    {
        let Some(tokenizer) = published_tokenizer(file) else { return };
        let ids = |text: &str| tokenizer.encode_as_published(text, 100).unwrap();
        let (read, mut whole) = (ids(prompt), ids(&format!("{prompt} guitar{end}")));
        // LLaMA's published tokenizer ends no text; T5's ends the prompt, too
        if whole.last() != Some(&tokenizer.end()) {
            whole.push(tokenizer.end());
        }
        let begun = read.strip_suffix(&[tokenizer.end()]).unwrap_or(&read);
        let answer = whole.strip_prefix(begun).unwrap().to_vec();
        let reader =
            Reader::new(AnswerConfig::default(), &model_config(text_config), tokenizer.clone(), None)
                .unwrap();
        assert_eq!(reader.targets([&asked].into_iter()).unwrap(), HostTokens::pad(&[answer]), "{file}");
        let prompts = reader.prompts([(reader.config.prompt.as_str(), &asked)].into_iter()).unwrap();
        assert_eq!(prompts.text, Some(HostTokens::pad(&[read])), "{file}");
    }
}

#[test]
fn published_questions_become_examples() {
    let cache = tempfile::tempdir().unwrap();
    let film = world(cache.path()).videos().unwrap().clips[0].path.clone();
    for (dataset, folder, split, expected) in [
        (DataSet::MsvdQa, "annotations/msvd-qa", Split::Test, 13_157),
        (DataSet::MsrvttQa, "annotations/msrvtt-qa", Split::Validate, 12_278),
    ] {
        let (Some(folder), Some(tokenizer)) = (shared(folder), published_tokenizer("t5/tokenizer.json"))
        else {
            continue;
        };
        // any film will do for all of them
        let clips: Vec<Clip> = annotations(dataset, &folder)
            .unwrap()
            .split(split)
            .map(|annotated| Clip {
                id: annotated.id.clone(),
                path: film.clone(),
                captions: Vec::new(),
                questions: annotated.questions.clone(),
                split,
            })
            .collect();
        let clips: Vec<&Clip> = clips.iter().collect();
        let videos = videos(&clips, Some(Sampling::Random), cache.path());
        let [t5, ..] = language_models();
        let reader = Reader::new(AnswerConfig::default(), &model_config(t5), tokenizer, None).unwrap();
        let examples = Questions::new(videos, &clips, reader, None).unwrap();
        assert_eq!(examples.len(), expected, "{dataset}");
        let Batch::Caption { prompts, captions, texts, .. } = examples.batch(1, &[0, 1, 2], 0..3).unwrap()
        else {
            panic!("questions are captions with prompts")
        };
        assert_eq!((captions.unwrap().len(), texts.len(), prompts.unwrap().text.unwrap().len()), (3, 3, 3));

        let scorer = AnswerScorer::new(None, &clips).unwrap();
        let answers = |answer: &dyn Fn(&Question) -> String| {
            clips.iter().flat_map(|clip| &clip.questions).map(answer).collect::<Vec<_>>()
        };
        let right = scorer.score(&answers(&|question| format!("The {}.", question.answer))).unwrap();
        assert_eq!(right.get(ACCURACY), Some(1.0), "{dataset}");
        println!("{dataset} {split}: always the most frequent answer: {:?}", scorer.chance(&scorer).unwrap());
    }
}

/// A Q-Former that reads text gets the prompt as its instruction, as in LAVIS, or what is set.
#[test]
fn an_instructblips_qformer_reads_the_prompt_or_its_own_instruction() {
    let [t5, ..] = language_models();
    let mut config = model_config(t5);
    config.qformer_config.reads_text = true;
    config.qformer_config.max_position_embeddings = 7;
    let asked = [question("1", "what moves", "square"), question("2", "what is this shape", "cross")];
    let prompts = |instruction: Option<&str>, qformer: Option<Arc<Tokenizer>>| {
        let answering =
            AnswerConfig { instruction: instruction.map(str::to_owned), ..AnswerConfig::default() };
        let reader = Reader::new(answering, &config, words(), qformer)?;
        anyhow::Ok(reader.prompts(asked.iter().map(|question| (QUESTION_PROMPT, question)))?)
    };
    let ids = |text: &str| words().encode_as_published(text, 7).unwrap();
    let padded = |texts: [&str; 2]| Some(HostTokens::pad(&texts.map(ids)));
    let own = prompts(None, Some(words())).unwrap();
    let expected =
        padded(["Question: what moves Short Answer:", "Question: what is this shape Short Answer:"]);
    assert_eq!(own.instruction, expected);
    let given = prompts(Some("{} now"), Some(words())).unwrap();
    assert_eq!(given.instruction, padded(["what moves now", "what is this shape now"]));
    assert_eq!(given.text, own.text, "the language model's prompt stays");
    assert_eq!(prompts(Some(""), Some(words())).unwrap().instruction, None);
    assert_eq!(prompts(None, None).unwrap().instruction, None);
    let error = prompts(Some("{}"), None).unwrap_err().to_string();
    assert!(error.contains("answering.instruction"), "{error}");
    let error = prompts(Some("{} {}"), Some(words())).unwrap_err().to_string();
    assert!(error.contains("2 places"), "{error}");
}
