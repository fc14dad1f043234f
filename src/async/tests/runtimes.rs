//! The same program on several runtimes, and on the worker's own thread.

mod common;

use std::cell::Cell;
use std::rc::Rc;
use std::sync::Arc;
use std::thread::ThreadId;

use common::{ALPN, Pair, configurations, local, settings};
use ringway::{Execution, ListenerOptions};
use ringway_async::{Connecting, Connection, ConnectionError, Endpoint, Listener, VarInt, block_on};

const REQUESTS: usize = 50;

async fn serve(listener: Listener) {
    let connection = listener.accept().await.unwrap().await.unwrap();
    while let Ok((mut send, mut receive)) = connection.accept_bi().await {
        let request = receive.read_to_end(1000).await.unwrap();
        send.write_all(&request).await.unwrap();
        send.finish().unwrap();
    }
    // Said, not found out when it has been silent for long: also where the client's context is dropped with the close in its inbox.
    let end = connection.closed().await;
    assert!(matches!(end, ConnectionError::ApplicationClosed(_)), "{end:?}");
}

async fn ask(connection: &Connection) {
    for number in 0..REQUESTS {
        let (mut send, mut receive) = connection.open_bi().await.unwrap();
        send.write_all(&[number as u8; 100]).await.unwrap();
        send.finish().unwrap();
        assert_eq!(receive.read_to_end(1000).await.unwrap(), [number as u8; 100]);
    }
}

async fn both(pair: Pair) {
    let connecting = pair
        .client
        .connect(pair.listener.local_addr(), "localhost")
        .unwrap();
    let client = async {
        let connection = connecting.await.unwrap();
        ask(&connection).await;
        connection.close(VarInt::from_u32(0), b"");
    };
    futures_util::future::join(serve(pair.listener), client).await;
}

#[test]
fn tokio_with_several_threads() {
    let runtime = tokio::runtime::Builder::new_multi_thread()
        .worker_threads(2)
        .build()
        .unwrap();
    runtime.block_on(async {
        let pair = Pair::new();
        let connecting = pair.client.connect(pair.listener.local_addr(), "localhost");
        let server = tokio::spawn(serve(pair.listener));
        let connection = connecting.unwrap().await.unwrap();
        let tasks: Vec<_> = (0..8)
            .map(|_| {
                let connection = connection.clone();
                tokio::spawn(async move { ask(&connection).await })
            })
            .collect();
        for task in tasks {
            task.await.unwrap();
        }
        connection.close(VarInt::from_u32(0), b"");
        server.await.unwrap();
    });
}

#[test]
fn smol() {
    smol::block_on(both(Pair::new()));
}

#[test]
fn executor_of_futures() {
    futures_executor::block_on(both(Pair::new()));
}

/// Says on which thread it is woken.
struct WokenOn(std::sync::Mutex<Vec<ThreadId>>, std::task::Waker);

impl std::task::Wake for WokenOn {
    fn wake(self: Arc<Self>) {
        self.0.lock().unwrap().push(std::thread::current().id());
        self.1.wake_by_ref();
    }
}

#[test]
fn tasks_on_the_workers_thread_are_woken_on_it_alone() {
    let (server_config, client_config) = configurations(settings(), settings());
    let (server, mut context) = local();
    let options = ListenerOptions::new("127.0.0.1:0".parse().unwrap(), &[ALPN]);
    let listener = server.listen(options, server_config).unwrap();
    let address = listener.local_addr();
    let client = std::thread::spawn(move || {
        let (mut client, mut context) = local();
        client.set_default_client_config(client_config);
        let executor = async_executor::LocalExecutor::new();
        // Not Send: it stays here.
        let asked = Rc::new(Cell::new(0));
        block_on(
            &mut context,
            executor.run(async {
                let connection = client.connect(address, "localhost").unwrap().await.unwrap();
                let tasks: Vec<_> = (0..4)
                    .map(|_| {
                        let (connection, asked) = (connection.clone(), Rc::clone(&asked));
                        executor.spawn(async move {
                            ask(&connection).await;
                            asked.set(asked.get() + 1);
                        })
                    })
                    .collect();
                for task in tasks {
                    task.await;
                }
                connection.close(VarInt::from_u32(0), b"");
            }),
        );
        asked.get()
    });
    let mut serving = std::pin::pin!(serve(listener));
    let mut woken = None;
    block_on(
        &mut context,
        std::future::poll_fn(|cx| {
            let woken = woken
                .get_or_insert_with(|| Arc::new(WokenOn(std::sync::Mutex::default(), cx.waker().clone())));
            let waker = Arc::clone(woken).into();
            serving.as_mut().poll(&mut std::task::Context::from_waker(&waker))
        }),
    );
    assert_eq!(client.join().unwrap(), 4);
    let woken = woken.unwrap();
    let threads = woken.0.lock().unwrap();
    assert!(threads.len() > REQUESTS);
    assert!(
        threads
            .iter()
            .all(|&thread| thread == std::thread::current().id())
    );
}

#[test]
fn other_threads_wake_tasks_on_a_worker_that_sleeps() {
    let (_endpoint, mut context) = local();
    let (sender, receiver) = futures_executor::block_on(async { tokio::sync::oneshot::channel() });
    let other = std::thread::spawn(move || {
        std::thread::sleep(std::time::Duration::from_millis(100));
        sender.send(7).unwrap();
    });
    assert_eq!(block_on(&mut context, receiver), Ok(7));
    other.join().unwrap();
}

#[test]
fn handler_that_drives_another_context_may_wait_for_its_tasks() {
    let (server_config, client_config) = configurations(settings(), settings());
    let server = Endpoint::new(&common::registration());
    let options = ListenerOptions::new("127.0.0.1:0".parse().unwrap(), &[ALPN]);
    let listener = server.listen(options, server_config).unwrap();
    let address = listener.local_addr();
    let (tell, told) = std::sync::mpsc::channel();
    std::thread::spawn(move || {
        let (outer, mut context) = local();
        let configuration = Arc::clone(&client_config);
        let handler = move |_: &ringway::Connection, event: ringway::ConnectionEvent<'_>| {
            if let ringway::ConnectionEvent::Connected { .. } = event {
                let (mut inner, mut context) = local();
                inner.set_default_client_config(Arc::clone(&configuration));
                block_on(&mut context, async {
                    let connection = inner.connect(address, "localhost").unwrap().await.unwrap();
                    ask(&connection).await;
                    connection.close(VarInt::from_u32(0), b"");
                });
                tell.send(()).unwrap();
            }
        };
        let target = ringway::ConnectTarget::new(address, "localhost");
        let connection =
            ringway::Connection::start(outer.registration(), &client_config, &target, handler).unwrap();
        block_on(&mut context, std::future::pending::<()>());
        drop(connection);
    });
    std::thread::spawn(move || {
        futures_executor::block_on(async {
            // Its client says its last word when the handler has returned.
            let _outer = listener.accept().await.unwrap().accept();
            serve(listener).await;
        });
    });
    let inner = told.recv_timeout(std::time::Duration::from_secs(20));
    assert_eq!(inner, Ok(()), "the tasks of the inner context were never woken");
}

#[cfg(feature = "tokio")]
#[test]
fn tokio_drives_a_context_beside_its_own_timers() {
    on_tokio(async {
        let (connection, end) = driven(settings()).await;
        ask(&connection).await;
        tokio::time::sleep(std::time::Duration::from_millis(50)).await;
        ask(&connection).await;
        end.await;
    });
}

/// On a runtime of one thread, with timers.
#[cfg(feature = "tokio")]
fn on_tokio(future: impl Future<Output = ()>) {
    let runtime = tokio::runtime::Builder::new_current_thread()
        .enable_all()
        .build()
        .unwrap();
    runtime.block_on(future);
}

/// A server and a client on one context.
struct Meeting {
    context: Execution,
    endpoint: Endpoint,
    listener: Listener,
    connecting: Connecting,
}

impl Meeting {
    fn begin(of_client: ringway::Settings) -> Meeting {
        let (server_config, client_config) = configurations(settings(), of_client);
        let (mut endpoint, context) = local();
        endpoint.set_default_client_config(client_config);
        let options = ListenerOptions::new("127.0.0.1:0".parse().unwrap(), &[ALPN]);
        let listener = endpoint.listen(options, server_config).unwrap();
        Meeting {
            context,
            connecting: endpoint.connect(listener.local_addr(), "localhost").unwrap(),
            endpoint,
            listener,
        }
    }
}

/// A server and a client on one context, which tokio drives. Gives the client's connection, and what ends all.
#[cfg(feature = "tokio")]
async fn driven(of_client: ringway::Settings) -> (Connection, impl Future<Output = ()>) {
    let Meeting {
        context,
        endpoint,
        listener,
        connecting,
    } = Meeting::begin(of_client);
    let driver = tokio::spawn(ringway_async::drive(context));
    let server = tokio::spawn(serve(listener));
    let connection = connecting.await.unwrap();
    let handle = connection.clone();
    let end = async move {
        handle.close(VarInt::from_u32(0), b"");
        server.await.unwrap();
        drop(handle);
        endpoint
            .registration()
            .shutdown_within(0, std::time::Duration::ZERO)
            .unwrap();
        drop(endpoint);
        driver.await.unwrap().unwrap();
    };
    (connection, end)
}

/// What a task wants on the thread of its context, nobody is notified of.
#[test]
fn tasks_beside_the_context_queue_nothing_for_its_worker() {
    let mut meeting = Meeting::begin(settings());
    block_on(&mut meeting.context, async {
        let server = std::pin::pin!(serve(meeting.listener));
        let client = std::pin::pin!(async {
            let connection = meeting.connecting.await.unwrap();
            for _ in 0..10 {
                ask(&connection).await;
            }
        });
        futures_util::future::select(server, client).await;
    });
    // Counters are renewed once a second.
    std::thread::sleep(std::time::Duration::from_millis(1100));
    meeting.context.poll();
    let queued = meeting.endpoint.registration().stats()[0].worker.operations;
    assert!(
        queued < REQUESTS as u64,
        "{queued} for {} requests",
        10 * REQUESTS
    );
}

#[cfg(feature = "tokio")]
#[test]
fn tasks_beside_the_context_and_on_other_threads_share_a_connection() {
    on_tokio(async {
        let (connection, end) = driven(settings()).await;
        let mut tasks = Vec::new();
        for _ in 0..4 {
            let (here, there) = (connection.clone(), connection.clone());
            tasks.push(tokio::spawn(async move { ask(&here).await }));
            let ask = move || futures_executor::block_on(ask(&there));
            tasks.push(tokio::task::spawn_blocking(ask));
        }
        for task in tasks {
            task.await.unwrap();
        }
        end.await;
    });
}

#[cfg(feature = "tokio")]
#[test]
fn context_that_tokio_moves_between_threads_serves_tasks_of_all() {
    let runtime = tokio::runtime::Builder::new_multi_thread()
        .worker_threads(2)
        .enable_all()
        .build()
        .unwrap();
    runtime.block_on(async {
        let (connection, end) = driven(settings()).await;
        let ask = |_| {
            let connection = connection.clone();
            tokio::spawn(async move { ask(&connection).await })
        };
        for task in (0..8).map(ask).collect::<Vec<_>>() {
            task.await.unwrap();
        }
        end.await;
    });
}

#[cfg(feature = "tokio")]
#[test]
fn last_pieces_that_the_connections_send_queue_has_no_room_for_leave_when_it_has() {
    const LEN: usize = 900;
    let of_client = ringway::Settings {
        send_queue_limit: 2000,
        ..settings()
    };
    on_tokio(async {
        let (connection, end) = driven(of_client).await;
        let ask = |number: u8| {
            let connection = connection.clone();
            tokio::spawn(async move {
                let (mut send, mut receive) = connection.open_bi().await.unwrap();
                send.finish_with(vec![number; LEN].into()).await.unwrap();
                assert_eq!(receive.read_to_end(LEN).await.unwrap(), [number; LEN]);
            })
        };
        for task in (0..50).map(ask).collect::<Vec<_>>() {
            task.await.unwrap();
        }
        end.await;
    });
}
