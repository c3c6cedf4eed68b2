//! Many answers at once are those that each would have been alone.

mod common;

use std::sync::Arc;
use std::sync::atomic::AtomicBool;

use quant::DType;
use quant::kernels::Kernels;
use runtime::chat::Message;
use runtime::sampler::{LogProbs, Sampler, SamplingParams};
use runtime::vision::ImageRows;
use runtime::{KvType, Model, Prompt, Session, SessionOptions};
use server::{Ask, Done, Engine, Event, Failure, Why};
use tokio::sync::mpsc::{UnboundedReceiver, unbounded_channel};

use common::{convert, open};

fn demo() -> Arc<Model> {
    use std::sync::LazyLock;
    static DEMO: LazyLock<(tempfile::TempDir, Arc<Model>)> = LazyLock::new(|| {
        let folder = std::path::Path::new(env!("CARGO_MANIFEST_DIR")).join("models/demo");
        let dir = common::convert_dir(&folder, DType::F32, DType::F32);
        let model = open(dir.path());
        (dir, model)
    });
    DEMO.1.clone()
}

/// Float weights and an f32 cache: what is different is wrong.
fn exact() -> SessionOptions {
    SessionOptions {
        kv_type: KvType::F32,
        kernels: Kernels::detect(),
        threads: Some(2),
        ..SessionOptions::default()
    }
}

fn engine(model: &Arc<Model>, options: SessionOptions) -> Engine {
    Engine::start(Session::new(model.clone(), &options).unwrap(), ()).unwrap()
}

fn greedy(prompt: impl Into<Prompt>, limit: usize) -> Ask {
    Ask { limit, log_probs: Some(2), ..Ask::new(prompt, SamplingParams::greedy()) }
}

/// An answer, whole.
#[derive(Debug, Default)]
struct Answer {
    text: String,
    drawn: Vec<(u32, LogProbs)>,
    end: Option<Result<Done, Failure>>,
}

impl Answer {
    fn done(&self) -> &Done {
        self.end.as_ref().unwrap().as_ref().unwrap()
    }

    fn tokens(&self) -> Vec<u32> {
        self.drawn.iter().map(|(token, _)| *token).collect()
    }
}

/// All that comes, by answer.
fn listen(mut events: UnboundedReceiver<(usize, Event)>, answers: usize) -> Vec<Answer> {
    let mut all: Vec<Answer> = (0..answers).map(|_| Answer::default()).collect();
    while let Some((index, event)) = events.blocking_recv() {
        let answer = &mut all[index];
        assert!(answer.end.is_none(), "more after the end of {index}");
        match event {
            Event::Piece(piece) => {
                answer.text += &piece.text;
                answer.drawn.extend(piece.drawn);
            }
            Event::Done(done) => answer.end = Some(Ok(done)),
            Event::Failed(failure) => answer.end = Some(Err(failure)),
        }
    }
    all
}

fn answers(engine: &Engine, asks: Vec<Ask>) -> Vec<Answer> {
    let (events, receiver) = unbounded_channel();
    let n = asks.len();
    engine.answer(asks, &events).unwrap();
    drop(events);
    listen(receiver, n)
}

/// What a session of its own says to it: the tokens, and the probabilities of each.
fn alone(model: &Arc<Model>, ask: &Ask, context: usize) -> (Vec<u32>, Why) {
    let options = SessionOptions { context: Some(context), ..exact() };
    let mut session = Session::new(model.clone(), &options).unwrap();
    let mut sampler = Sampler::new(ask.sampling.clone()).unwrap();
    sampler.begin(ask.prompt.tokens());
    let never = AtomicBool::new(false);
    let mut logits = session.append(0, &ask.prompt, &never).unwrap().to_vec();
    let mut tokens = Vec::new();
    loop {
        let token = sampler.sample(&logits).unwrap();
        sampler.accept(token);
        if model.tokenizer().is_eos(token) && !ask.ignore_eos {
            return (tokens, Why::Stop);
        }
        tokens.push(token);
        if tokens.len() == ask.limit || ask.prompt.len() + tokens.len() > context {
            return (tokens, Why::Length);
        }
        logits = session.append(0, &[token], &never).unwrap().to_vec();
    }
}

/// Are they the same, up to a place where two tokens were about as likely?
fn assert_same(answer: &Answer, model: &Arc<Model>, ask: &Ask, context: usize) {
    let (want, why) = alone(model, ask, context);
    let got = answer.tokens();
    let differs = got.iter().zip(&want).position(|(a, b)| a != b);
    if let Some(at) = differs {
        let top = &answer.drawn[at].1.top;
        let close = ask.sampling.temperature == 0.0 && top[0].1 - top[1].1 < 1e-3;
        assert!(close, "{got:?}\n{want:?}\ndiffer at {at}: {top:?}");
        println!("differs where {top:?}");
        return;
    }
    assert_eq!((got.len(), answer.done().why), (want.len(), why), "{got:?}\n{want:?}");
    assert_eq!(answer.done().tokens, want.len());
    assert_eq!(answer.text, model.tokenizer().decode(&want));
}

/// Numbers that look random, the same each time.
struct Numbers(u64);

impl Numbers {
    fn below(&mut self, n: usize) -> usize {
        self.0 = self.0.wrapping_mul(6364136223846793005).wrapping_add(1442695040888963407);
        (self.0 >> 33) as usize % n
    }
}

/// Texts that begin alike or not, of all lengths, drawn or greedy; some are left before they end. More of
/// them than slots, in batches of several sizes and contexts that are filled, with rings that go round.
fn whatever_comes_at_once(
    on: impl Fn(SessionOptions) -> SessionOptions,
    rounds: usize,
    asks: usize,
) {
    let model = demo();
    let text = std::fs::read_to_string("models/eval.txt").unwrap();
    let words = model.tokenizer().encode(&text, runtime::tokenizer::Special::Plain);
    let mut numbers = Numbers(7);
    for round in 0..rounds {
        let (slots, batch) = ([3, 1, 4, 2][round % 4], [64, 512, 7, 200][round % 4]);
        let context = 420;
        let options = SessionOptions { sequences: slots, batch, context: Some(context), ..exact() };
        let engine = engine(&model, on(options));
        let mut asked: Vec<Ask> = Vec::new();
        let mut waited_for = Vec::new();
        for index in 0..asks {
            // One of four texts from its beginning, or one that was asked before and goes on.
            let mut prompt = vec![2];
            match asked.len() {
                n @ 1.. if numbers.below(3) == 0 => {
                    let before = &asked[numbers.below(n)].prompt;
                    prompt = before.tokens().to_vec();
                    let from = numbers.below(words.len() - 100);
                    let more = (1 + numbers.below(60)).min(context - prompt.len());
                    prompt.extend(&words[from..][..more]);
                }
                _ => {
                    let from = numbers.below(4) * 500;
                    prompt.extend(&words[from..][..1 + numbers.below(300)]);
                }
            }
            let mut ask = greedy(prompt, 1 + numbers.below(120));
            ask.ignore_eos = numbers.below(4) == 0;
            if numbers.below(2) == 0 {
                let seed = numbers.below(1000) as u64;
                ask.sampling =
                    SamplingParams { seed, frequency_penalty: 0.1, ..Default::default() };
            }
            asked.push(ask.clone());
            let (events, receiver) = unbounded_channel();
            engine.answer(vec![ask], &events).unwrap();
            // Of some whoever asked is gone at once.
            if numbers.below(6) > 0 {
                waited_for.push((index, receiver));
            }
        }
        let mut cached = 0;
        for (index, receiver) in waited_for {
            let answer = listen(receiver, 1).remove(0);
            assert_same(&answer, &model, &asked[index], context);
            cached += answer.done().cached_tokens;
        }
        println!("{slots} slots, batches of {batch}: {cached} positions were there already");
        assert!(cached > 0);
        assert_eq!(engine.load().1, 0);
    }
}

#[test]
fn whatever_comes_at_once_is_answered_as_if_alone() {
    whatever_comes_at_once(|options| options, 4, 24);
}

#[cfg(feature = "gpu")]
#[test]
fn whatever_comes_at_once_on_a_gpu() {
    let Some(device) = common::gpu::device() else { return };
    whatever_comes_at_once(|options| SessionOptions { gpu: Some(device.clone()), ..options }, 2, 8);
}

/// A conversation that goes on costs its new tokens; one beside it that begins alike has what they share
/// copied; answers to the same prompt wait until it is read.
#[test]
fn what_is_there_is_not_read_again() {
    let model = demo();
    let tokenizer = model.tokenizer();
    let engine = engine(&model, SessionOptions { sequences: 2, ..exact() });
    let mut talk = vec![
        Message::system(
            "You are a friend of animals, and answer in short words, as a friend would.",
        ),
        Message::user("What is the capital of France?"),
    ];
    let prompt = |talk: &[Message]| model.template().render(tokenizer, talk, true);
    let first = prompt(&talk);
    let answer = answers(&engine, vec![greedy(first.clone(), 50)]).remove(0);
    assert_eq!((answer.done().cached_tokens, answer.done().why), (0, Why::Stop));
    let said = answer.tokens().len();
    talk.push(Message::assistant(answer.text));
    talk.push(Message::user("And of Italy?"));
    let second = prompt(&talk);
    let answer = answers(&engine, vec![greedy(second.clone(), 50)]).remove(0);
    // All that was said, but for the last word's end.
    assert_eq!(answer.done().cached_tokens, first.len() + said);
    assert_same(&answer, &model, &greedy(second, 50), 1024);

    // Other conversations with the same instructions, which take the other slot.
    talk.truncate(1);
    talk.push(Message::user("Tell me about a bear."));
    let other = prompt(&talk);
    let same = first.iter().zip(&other).take_while(|(a, b)| a == b).count();
    let answer = answers(&engine, vec![greedy(other.clone(), 20)]).remove(0);
    assert_eq!(answer.done().cached_tokens, same);
    assert_same(&answer, &model, &greedy(other.clone(), 20), 1024);

    // Unless that is not wanted.
    let again = answers(&engine, vec![Ask { reuse: false, ..greedy(other.clone(), 20) }]).remove(0);
    assert_eq!(again.done().cached_tokens, 0);
    assert_eq!(again.tokens(), answer.tokens());

    // Two answers to a prompt that neither slot knows.
    let new: Vec<u32> = [2].into_iter().chain((0..200).map(|i| 300 + i * 7 % 1000)).collect();
    let both = answers(&engine, vec![greedy(new.clone(), 5), greedy(new.clone(), 5)]);
    assert_eq!(both[0].done().cached_tokens, 1, "all texts begin with the same token");
    assert_eq!(both[1].done().cached_tokens, new.len() - 1, "the last one's logits are needed");
    assert_eq!(both[0].tokens(), both[1].tokens());
}

#[test]
fn answers_end_where_they_should() {
    let model = demo();
    let context = 60;
    let options = SessionOptions { sequences: 2, context: Some(context), ..exact() };
    let engine = engine(&model, options);
    let question = [Message::user("What is the capital of France?")];
    let prompt = model.template().render(model.tokenizer(), &question, true);
    let ask = |change: fn(&mut Ask)| {
        let mut ask = greedy(prompt.clone(), usize::MAX);
        change(&mut ask);
        answers(&engine, vec![ask]).remove(0)
    };
    let whole = ask(|_| ());
    assert_eq!(
        (whole.text.as_str(), whole.done().why),
        ("The capital of France is Paris.", Why::Stop)
    );
    let limited = ask(|ask| ask.limit = 2);
    assert_eq!((limited.text.as_str(), limited.done().why), ("The capital", Why::Length));
    let stopped = ask(|ask| ask.stop = vec!["nce is".into(), "Paris".into()]);
    assert_eq!((stopped.text.as_str(), stopped.done().why), ("The capital of Fra", Why::Stop));
    let filled = ask(|ask| ask.ignore_eos = true);
    assert_eq!(filled.done().why, Why::Length);
    // The last token needs no room.
    assert_eq!(prompt.len() + filled.done().tokens, context + 1);

    let (events, mut receiver) = unbounded_channel();
    let refused = |ask: Ask| engine.answer(vec![ask], &events).unwrap_err();
    let long = refused(greedy(vec![2; context + 1], 1));
    assert!(matches!(long, Failure::TooLong { tokens: 61, context: 60 }), "{long}");
    assert!(matches!(refused(greedy(Prompt::new(), 1)), Failure::NoPrompt));
    let many = engine.answer(vec![greedy(vec![2], 1); 257], &events).unwrap_err();
    assert!(matches!(many, Failure::TooMany { answers: 257 }), "{many}");
    let mut wrong = greedy(vec![2], 1);
    wrong.sampling.temperature = -1.0;
    engine.answer(vec![wrong], &events).unwrap();
    let told = receiver.blocking_recv().unwrap().1;
    assert!(
        matches!(&told, Event::Failed(Failure::Model(m)) if m.contains("temperature")),
        "{told:?}"
    );

    // What runs between two passes runs, and a stopped engine says so to all.
    assert_eq!(engine.between(|| 7).unwrap(), 7);
    let mut endless = greedy(vec![2], usize::MAX);
    endless.ignore_eos = true;
    engine.answer(vec![endless], &events).unwrap();
    drop(events);
    engine.stop();
    let last = std::iter::from_fn(|| receiver.blocking_recv())
        .find(|(_, e)| !matches!(e, Event::Piece(_)));
    assert!(
        matches!(last, Some((0, Event::Failed(Failure::Stopping) | Event::Done(_)))),
        "{last:?}"
    );
}

/// Tokens of a prompt are scored whatever the cache holds, in pieces, beside answers that are being written.
#[test]
fn prompts_are_scored() {
    let model = demo();
    let text = std::fs::read_to_string("models/eval.txt").unwrap();
    let words = model.tokenizer().encode(&text, runtime::tokenizer::Special::Plain);
    let prompt = [&[2], &words[..150]].concat();
    let vocab = model.weights().vocab();
    let logits = common::logits(&model, &exact(), &prompt, &[]);
    let engine = engine(&model, SessionOptions { sequences: 2, ..exact() });
    answers(&engine, vec![greedy(prompt.clone(), 3)]);
    let score = |limit: usize| Ask { score_prompt: true, ..greedy(prompt.clone(), limit) };
    for answer in
        answers(&engine, vec![score(0), score(4), greedy(prompt[..99].to_vec(), 40)]).iter().take(2)
    {
        let done = answer.done();
        assert_eq!((done.cached_tokens, done.why), (0, Why::Length));
        assert_eq!(answer.drawn.len(), prompt.len() - 1 + done.tokens);
        for (i, (token, p)) in answer.drawn.iter().take(prompt.len() - 1).enumerate() {
            let want = LogProbs::new(&logits[i * vocab..][..vocab], prompt[i + 1], 2).unwrap();
            assert_eq!(*token, prompt[i + 1]);
            assert!((p.token - want.token).abs() < 1e-3, "{i}: {p:?} {want:?}");
            assert!((p.top[1].1 - want.top[1].1).abs() < 1e-3, "{i}: {p:?} {want:?}");
        }
    }
}

/// Images go in whole, beside answers that are being written, and are known again.
#[test]
fn images_are_read_beside_others() {
    let dir = convert("gemma3-mm", DType::F32, DType::F32);
    let model = open(dir.path());
    let hidden = model.config().hidden;
    let image = |seed: usize| {
        let value = |i: usize| ((i * 31 + seed * 17) % 101) as f32 / 50.0 - 1.0;
        Arc::new(ImageRows::new(hidden, (0..hidden * 40).map(value).collect::<Vec<_>>()))
    };
    let images = [image(1), image(2)];
    let prompt = |of: &[usize]| {
        let mut prompt = Prompt::from(vec![2, 7, 9]);
        for &i in of {
            prompt.push_image(5, images[i].clone());
            prompt.extend(&[11, 12, 13 + i as u32]);
        }
        prompt
    };
    let options = SessionOptions { sequences: 3, batch: 64, context: Some(200), ..exact() };
    let engine = engine(&model, options);
    let lists: [&[usize]; 7] = [&[], &[0], &[0, 1], &[1], &[1, 0], &[0, 1], &[]];
    let asks: Vec<Ask> =
        lists.iter().map(|list| Ask { ignore_eos: true, ..greedy(prompt(list), 30) }).collect();
    let all = answers(&engine, asks.clone());
    for (answer, ask) in all.iter().zip(&asks) {
        assert_same(answer, &model, ask, 200);
    }
    let again = answers(&engine, vec![greedy(prompt(&[0, 1]), 1)]).remove(0);
    assert_eq!(again.done().cached_tokens, prompt(&[0, 1]).len() - 1);

    let (events, _receiver) = unbounded_channel();
    let mut long = Prompt::from(vec![2]);
    long.push_image(5, Arc::new(ImageRows::new(hidden, vec![0.0; hidden * 65])));
    let refused = engine.answer(vec![greedy(long, 1)], &events).unwrap_err();
    assert!(matches!(refused, Failure::ImageTooLong { rows: 65, batch: 64 }), "{refused}");
}
