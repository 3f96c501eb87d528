//! Each text is read once, by whoever came first, or not at all.

use std::collections::VecDeque;
use std::time::Instant;

use axum::body::to_bytes;
use proptest::prelude::*;
use tokio::time::advance;

use super::*;

fn rendezvous(limits: Limits) -> Arc<Rendezvous> {
    Arc::new(Rendezvous {
        board: Mutex::new(Board::new(limits, now())),
        refused: Arc::default(),
        stopping: Box::new(|| false),
    })
}

const NOT: Duration = Duration::ZERO;
const LONG: Duration = Duration::from_secs(60);

async fn set(there: &Arc<Rendezvous>, id: &str, text: &'static str, wait: Duration) -> Result<u16, Reason> {
    there.set(id, Bytes::from_static(text.as_bytes()), wait).await.map(|response| response.status().as_u16())
}

/// `None`: nobody left anything.
async fn get(there: &Arc<Rendezvous>, id: &str, wait: Duration) -> Option<String> {
    let response = there.get(id.to_owned(), wait).await.expect("it may wait");
    let status = response.status();
    let body = to_bytes(response.into_body(), usize::MAX).await.expect("complete");
    (status == StatusCode::OK).then(|| String::from_utf8(body.to_vec()).expect("text"))
}

#[tokio::test(start_paused = true)]
async fn texts_come_in_order_and_once() {
    let there = rendezvous(Limits::default());
    assert_eq!(get(&there, "ada", NOT).await, None);
    for text in ["one", "", "three"] {
        assert_eq!(set(&there, "ada", text, NOT).await, Ok(204));
    }
    assert_eq!(set(&there, "ben", "other", NOT).await, Ok(204));
    for text in ["one", "", "three"] {
        assert_eq!(get(&there, "ada", LONG).await.as_deref(), Some(text));
    }
    assert_eq!(get(&there, "ada", LONG).await, None, "after a minute");
    assert_eq!(get(&there, "ben", NOT).await.as_deref(), Some("other"));
    assert_eq!(there.board().held(), (0, 0), "nothing is left behind");
}

#[tokio::test(start_paused = true)]
async fn readers_who_wait_are_served_in_the_order_in_which_they_came() {
    let there = rendezvous(Limits::default());
    let mut readers = Vec::new();
    for _ in 0..3 {
        let there = there.clone();
        readers.push(tokio::spawn(async move { get(&there, "ada", LONG).await }));
        tokio::task::yield_now().await;
    }
    // The second gives up.
    readers.remove(1).abort();
    tokio::task::yield_now().await;
    for text in ["one", "two"] {
        set(&there, "ada", text, NOT).await.expect("room");
    }
    for (reader, text) in readers.into_iter().zip(["one", "two"]) {
        assert_eq!(reader.await.expect("answered").as_deref(), Some(text));
    }
    assert_eq!(there.board().held(), (0, 0));
}

#[tokio::test(start_paused = true)]
async fn a_reader_who_goes_before_the_text_was_written_has_not_taken_it() {
    let there = rendezvous(Limits::default());
    for text in ["one", "two"] {
        set(&there, "ada", text, NOT).await.expect("room");
    }
    drop(there.get("ada".into(), NOT).await.expect("an answer that nobody hears"));
    assert_eq!(get(&there, "ada", NOT).await.as_deref(), Some("one"), "it is the first again");
    assert_eq!(get(&there, "ada", NOT).await.as_deref(), Some("two"));
    // The text comes in the very moment in which the reader goes.
    let waiting = tokio::spawn({
        let there = there.clone();
        async move { get(&there, "ada", LONG).await }
    });
    tokio::task::yield_now().await;
    set(&there, "ada", "three", NOT).await.expect("room");
    waiting.abort();
    assert!(waiting.await.is_err());
    assert_eq!(get(&there, "ada", NOT).await.as_deref(), Some("three"));
}

#[tokio::test(start_paused = true)]
async fn an_author_may_wait_until_the_text_was_read() {
    let there = rendezvous(Limits::default());
    let author = |wait| {
        let there = there.clone();
        tokio::spawn(async move { set(&there, "ada", "hello", wait).await })
    };
    let waits = author(LONG);
    tokio::task::yield_now().await;
    assert_eq!(get(&there, "ada", NOT).await.as_deref(), Some("hello"));
    assert_eq!(waits.await.expect("answered"), Ok(200));
    // Nobody comes: the author is told so, and takes the text back.
    assert_eq!(author(LONG).await.expect("answered"), Ok(504));
    assert_eq!(get(&there, "ada", NOT).await, None);
    // The author goes himself.
    let gone = author(LONG);
    tokio::task::yield_now().await;
    gone.abort();
    assert!(gone.await.is_err());
    assert_eq!(get(&there, "ada", NOT).await, None);
    assert_eq!(there.board().held(), (0, 0));
}

#[tokio::test(start_paused = true)]
async fn a_text_in_somebodys_hands_is_not_taken_back_from_there() {
    let there = rendezvous(Limits::default());
    for written in [true, false] {
        let author = tokio::spawn({
            let there = there.clone();
            async move { set(&there, "ada", "hello", Duration::from_millis(50)).await }
        });
        tokio::task::yield_now().await;
        let answer = there.get("ada".into(), NOT).await.expect("an answer");
        advance(Duration::from_millis(60)).await;
        assert!(!author.is_finished(), "it is not yet known");
        if written {
            to_bytes(answer.into_body(), usize::MAX).await.expect("written");
        } else {
            drop(answer);
        }
        assert_eq!(author.await.expect("answered"), Ok(if written { 200 } else { 504 }));
        assert_eq!(get(&there, "ada", NOT).await, None);
    }
}

#[tokio::test(start_paused = true)]
async fn texts_are_forgotten_in_time() {
    let limits = Limits { life: Duration::from_secs(30), ..Limits::default() };
    let there = rendezvous(limits);
    set(&there, "ada", "old", NOT).await.expect("room");
    advance(Duration::from_secs(20)).await;
    set(&there, "ada", "new", NOT).await.expect("room");
    advance(Duration::from_secs(10)).await;
    assert_eq!(get(&there, "ada", NOT).await.as_deref(), Some("new"));
    set(&there, "ada", "never asked for", NOT).await.expect("room");
    advance(Duration::from_secs(40)).await;
    assert_eq!(get(&there, "ben", NOT).await, None);
    assert_eq!(there.board().held(), (0, 0), "nobody had to ask");
}

#[tokio::test(start_paused = true)]
async fn what_waits_is_bounded_in_every_way() {
    let limits = Limits {
        text_bytes: 8,
        texts: 2,
        bytes: 12,
        total_bytes: 24,
        readers: 1,
        ids: 3,
        ..Limits::default()
    };
    let there = rendezvous(limits);
    let full = Err(Reason::RendezvousFull);
    assert_eq!(set(&there, "a", "123456789", NOT).await, Err(Reason::MessageTooLarge));
    assert_eq!(set(&there, "a", "12345678", NOT).await, Ok(204));
    assert_eq!(set(&there, "a", "12345", NOT).await, full, "too many bytes of one id");
    assert_eq!(set(&there, "a", "1", NOT).await, Ok(204));
    assert_eq!(set(&there, "a", "1", NOT).await, full, "too many texts of one id");
    assert_eq!(set(&there, "b", "12345678", NOT).await, Ok(204));
    assert_eq!(set(&there, "c", "12345678", NOT).await, full, "too many bytes of all");
    assert_eq!(set(&there, "c", "1234567", NOT).await, Ok(204));
    assert_eq!(set(&there, "d", "", NOT).await, full, "too many ids");
    let waits = tokio::spawn({
        let there = there.clone();
        async move { get(&there, "c", LONG).await }
    });
    assert_eq!(waits.await.expect("answered").as_deref(), Some("1234567"));
    let waits = tokio::spawn({
        let there = there.clone();
        async move { get(&there, "c", LONG).await }
    });
    tokio::task::yield_now().await;
    assert_eq!(there.get("c".into(), LONG).await.err(), Some(Reason::RendezvousFull), "too many readers");
    assert_eq!(there.get("d".into(), LONG).await.err(), Some(Reason::RendezvousFull), "an id of his own");
    set(&there, "c", "1", NOT).await.expect("somebody waits for it");
    assert_eq!(waits.await.expect("answered").as_deref(), Some("1"));
}

/// What may happen to a board with one id.
#[derive(Clone, Copy, Debug)]
enum Step {
    Put {
        waits: bool,
    },
    Take {
        writes: bool,
    },
    Wait,
    /// The nth reader looks whether something came, and writes it or goes.
    Look {
        reader: usize,
        writes: bool,
    },
    Leave {
        reader: usize,
    },
    Withdraw {
        author: usize,
    },
}

fn step() -> impl Strategy<Value = Step> {
    prop_oneof![
        4 => any::<bool>().prop_map(|waits| Step::Put { waits }),
        3 => any::<bool>().prop_map(|writes| Step::Take { writes }),
        2 => Just(Step::Wait),
        2 => (0usize..8, any::<bool>()).prop_map(|(reader, writes)| Step::Look { reader, writes }),
        1 => (0usize..8).prop_map(|reader| Step::Leave { reader }),
        1 => (0usize..8).prop_map(|author| Step::Withdraw { author }),
    ]
}

proptest! {
    #![proptest_config(ProptestConfig::with_cases(200))]
    #[test]
    fn no_text_is_lost_or_read_twice(steps in prop::collection::vec(step(), 1..80)) {
        let now = Instant::now();
        let mut board = Board::new(Limits { texts: 1000, ..Limits::default() }, now);
        let mut readers: VecDeque<oneshot::Receiver<Text>> = VecDeque::new();
        let mut authors: Vec<(u64, oneshot::Receiver<()>)> = Vec::new();
        let (mut put, mut read, mut withdrawn) = (Vec::new(), Vec::new(), Vec::new());
        // Everybody who is still there looks, and whatever is left is taken, at the end.
        let end = (0..80).map(|_| Step::Look { reader: 0, writes: true })
            .chain((0..80).map(|_| Step::Take { writes: true }));
        for step in steps.into_iter().chain(end) {
            let mut hand = |board: &mut Board, mut text: Text, writes: bool| {
                if writes {
                    read.push(text.number);
                    text.confirm();
                } else {
                    board.put_back("id", text);
                }
            };
            match step {
                Step::Put { waits } => {
                    let (number, confirmed) = board.put(now, "id", Bytes::new(), waits).expect("room");
                    put.push(number);
                    authors.extend(confirmed.map(|confirmed| (number, confirmed)));
                }
                Step::Take { writes } => {
                    if let Some(text) = board.take(now, "id") {
                        hand(&mut board, text, writes);
                    }
                }
                Step::Wait => readers.extend(board.wait(now, "id").ok()),
                Step::Look { reader, writes } => {
                    if let Some(mut waiting) = readers.remove(reader) {
                        waiting.close();
                        if let Ok(text) = waiting.try_recv() {
                            hand(&mut board, text, writes);
                        }
                    }
                }
                Step::Leave { reader } => {
                    if let Some(mut waiting) = readers.remove(reader) {
                        waiting.close();
                        if let Ok(text) = waiting.try_recv() {
                            board.put_back("id", text);
                        }
                    }
                }
                Step::Withdraw { author } => {
                    if author < authors.len() && board.withdraw("id", authors[author].0) {
                        withdrawn.push(authors.remove(author).0);
                    }
                }
            }
        }
        let mut ends: Vec<_> = read.iter().chain(&withdrawn).copied().collect();
        ends.sort_unstable();
        prop_assert_eq!(ends, put);
        for (number, mut confirmed) in authors {
            prop_assert_eq!(confirmed.try_recv().is_ok(), read.contains(&number));
        }
        board.forget_idle("id");
        prop_assert_eq!(board.held(), (0, 0));
    }
}

mod http {
    //! As curl and browsers see it.

    use std::net::SocketAddr;

    use tokio::io::{AsyncReadExt as _, AsyncWriteExt as _};
    use tokio::net::{TcpListener, TcpStream};

    use super::*;

    async fn server() -> SocketAddr {
        let listener = TcpListener::bind("127.0.0.1:0").await.expect("a port");
        let address = listener.local_addr().expect("bound");
        let router = router(Limits::default(), Arc::default(), || false);
        tokio::spawn(async move { axum::serve(listener, router).await });
        address
    }

    async fn request(address: SocketAddr, method: &str, query: &str, body: &str) -> TcpStream {
        let mut stream = TcpStream::connect(address).await.expect("connected");
        let len = body.len();
        let head = format!(
            "{method} /sig{query} HTTP/1.1\r\nHost: x\r\nConnection: close\r\nContent-Length: {len}\r\n\r\n"
        );
        stream.write_all((head + body).as_bytes()).await.expect("sent");
        stream
    }

    /// Status, head and body.
    async fn ask(address: SocketAddr, method: &str, query: &str, body: &str) -> (u16, String, String) {
        let mut stream = request(address, method, query, body).await;
        let mut text = String::new();
        stream.read_to_string(&mut text).await.expect("an answer");
        let (head, body) = text.split_once("\r\n\r\n").expect("a head");
        (head[9..12].parse().expect("a status"), head.to_lowercase(), body.to_owned())
    }

    #[tokio::test]
    async fn two_verbs_and_nothing_else() {
        let address = server().await;
        let status = async |method: &str, query: &str, body: &str| ask(address, method, query, body).await.0;
        assert_eq!(status("POST", "?set=ada%20%C3%A9", "hello\n\u{e9}").await, 204);
        let (code, head, body) = ask(address, "POST", "?get=ada%20%C3%A9", "").await;
        assert_eq!((code, body.as_str()), (200, "hello\n\u{e9}"), "the raw bytes");
        assert!(
            head.contains("access-control-allow-origin: *") && head.contains("content-length: 8"),
            "{head}"
        );
        assert_eq!(status("POST", "?get=ada%20%C3%A9&timeoutms=1", "").await, 204);
        assert_eq!(status("POST", "?set=ben&timeoutms=1", "hello").await, 504);
        let (code, head, _) = ask(address, "OPTIONS", "", "").await;
        assert!(code == 204 && head.contains("access-control-allow-methods: post"), "{head}");
        for (method, query, code) in [
            ("GET", "?get=ada", 405),
            ("POST", "", 400),
            ("POST", "?get=a&set=b", 400),
            ("POST", "?get=", 400),
            ("POST", "?get=a&timeoutms=-1", 400),
        ] {
            assert_eq!(status(method, query, "").await, code, "{method} {query}");
        }
        let longest = "x".repeat(ID_BYTES);
        assert_eq!(status("POST", &format!("?get={longest}"), "").await, 204);
        let (code, _, body) = ask(address, "POST", &format!("?get={longest}x"), "").await;
        assert!(code == 400 && body.contains("rendezvous_id"), "{body}");
        assert_eq!(status("POST", "?set=big", &"x".repeat(64 << 10)).await, 204);
        for more in [1, 2, 100_000] {
            let (code, _, body) = ask(address, "POST", "?set=big", &"x".repeat((64 << 10) + more)).await;
            assert!(code == 413 && body.contains("message_too_large"), "{body}");
        }
    }

    #[tokio::test]
    async fn a_connection_cut_while_it_waits_takes_nothing_along() {
        let address = server().await;
        let cut = request(address, "POST", "?get=ada&timeoutms=60000", "").await;
        let waits = tokio::spawn(ask_owned(address, "?get=ada&timeoutms=60000"));
        drop(cut);
        // The end of that connection reaches the server before the next one begins.
        let put = ask(address, "POST", "?set=ada&timeoutms=10000", "hello").await;
        assert_eq!(waits.await.expect("answered"), (200, "hello".to_owned()));
        assert_eq!(put.0, 200);
    }

    async fn ask_owned(address: SocketAddr, query: &'static str) -> (u16, String) {
        let (code, _, body) = ask(address, "POST", query, "").await;
        (code, body)
    }
}
