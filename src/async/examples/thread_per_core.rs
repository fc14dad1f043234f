//! A server with a thread for each processor, which runs the connections there and their tasks: nothing crosses threads, and tasks may share what
//! is not `Sync`.
#![allow(clippy::print_stdout, reason = "what it prints")]

use std::cell::Cell;
use std::pin::pin;
use std::rc::Rc;
use std::sync::atomic::{AtomicUsize, Ordering};
use std::thread;

use async_executor::LocalExecutor;
use futures_util::future::select;
use ringway::{ContextConfig, Execution, ExecutionConfig, ListenerOptions, Registration, Settings};
use ringway_async::{Connection, Endpoint, Listener, block_on, ringway};
use tokio::sync::oneshot;

#[path = "common/mod.rs"]
mod common;
use common::{Done, configurations};

fn main() -> Done {
    println!("{} requests answered", run(4, 100)?);
    Ok(())
}

/// Has so many clients make so many requests each. Gives how many the server's threads have answered.
pub(crate) fn run(clients: usize, requests: usize) -> Done<usize> {
    let execution = ExecutionConfig::default();
    let settings = Settings {
        peer_bidi_stream_count: 100,
        // Connections stay on the thread where their tasks are.
        follow_rss: false,
        ..Settings::default()
    };
    let (server, client) = configurations(b"count", settings)?;
    // With `ContextConfig::for_each_thread(&execution)?` there are as many as this machine has processors.
    let contexts = vec![ContextConfig::new(0), ContextConfig::new(1)];
    let (registration, contexts) = Execution::create(&execution, contexts)?;
    let options = ListenerOptions::new("127.0.0.1:0".parse()?, &[b"count"]);
    let listeners = Endpoint::new(&registration).listen_on_each(options, server)?;
    let address = listeners[0].local_addr();
    let answered = AtomicUsize::new(0);
    let mut endpoint = Endpoint::new(&Registration::open("client", &execution)?);
    endpoint.set_default_client_config(client);
    thread::scope(|scope| {
        let (stops, stopped): (Vec<_>, Vec<_>) = contexts.iter().map(|_| oneshot::channel::<()>()).unzip();
        for ((context, listener), stopped) in contexts.into_iter().zip(listeners).zip(stopped) {
            let answered = &answered;
            scope.spawn(move || {
                let count = serve(context, listener, stopped);
                answered.fetch_add(count, Ordering::Relaxed);
            });
        }
        let result = futures_executor::block_on(async {
            for _ in 0..clients {
                let connection = endpoint.connect(address, "localhost")?.await?;
                for _ in 0..requests {
                    let (mut send, mut receive) = connection.open_bi().await?;
                    send.write_all(b"request").await?;
                    send.finish()?;
                    receive.read_to_end(100).await?;
                }
                connection.close(0u32.into(), b"");
            }
            Done::Ok(())
        });
        drop(stops);
        result
    })?;
    Ok(answered.into_inner())
}

/// One thread: its connections and its tasks.
fn serve(mut context: Execution, listener: Listener, stopped: oneshot::Receiver<()>) -> usize {
    let executor = LocalExecutor::new();
    let answered = Rc::new(Cell::new(0));
    let accept = async {
        while let Some(incoming) = listener.accept().await {
            let answered = Rc::clone(&answered);
            let task = async move {
                // One that fails has ended.
                if let Ok(connection) = incoming.await {
                    answer(&connection, &answered).await;
                }
            };
            executor.spawn(task).detach();
        }
    };
    // Dropping the other end is the sign.
    let accept = pin!(accept);
    let main = select(accept, stopped);
    block_on(&mut context, executor.run(main));
    answered.get()
}

async fn answer(connection: &Connection, answered: &Cell<usize>) {
    while let Ok((mut send, mut receive)) = connection.accept_bi().await {
        if receive.read_to_end(100).await.is_ok() && send.write_all(b"answer").await.is_ok() {
            // It was not finished before.
            let _ = send.finish();
            answered.set(answered.get() + 1);
        }
    }
}
