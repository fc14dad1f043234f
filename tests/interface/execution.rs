//! Which threads a registration has, and how they run, as the kernel tells it.

use std::fs;
use std::net::UdpSocket;
use std::sync::Arc;
use std::sync::atomic::{AtomicBool, Ordering};
use std::sync::mpsc::channel;
use std::time::{Duration, Instant};

use ringway::{
    Backend, ConnectTarget, Connection, ConnectionEvent, ContextConfig, DatapathConfig, EventStatus,
    Execution, ExecutionConfig, ExecutionFlags, ExecutionMode, ExecutionProfile, Registration, SetupError,
};
use ringway_tests::{configurations, settings};

const TIMEOUT: Duration = Duration::from_secs(20);

/// What the kernel knows of a thread.
#[derive(Debug, PartialEq)]
struct Thread {
    /// Where it may run.
    processors: String,
    /// `SCHED_OTHER` is 0, `SCHED_RR` is 2.
    policy: String,
    /// The effective ones, in hexadecimal digits.
    capabilities: String,
}

fn this_thread() -> Thread {
    let status = fs::read_to_string("/proc/thread-self/status").unwrap();
    let line = |name| status.lines().find_map(|line| line.strip_prefix(name)).unwrap();
    // Field 41, counted from the state, the third, which follows the name in brackets.
    let stat = fs::read_to_string("/proc/thread-self/stat").unwrap();
    let fields = stat.rsplit_once(") ").unwrap().1;
    Thread {
        processors: line("Cpus_allowed_list:").trim().to_owned(),
        policy: fields.split_whitespace().nth(41 - 3).unwrap().to_owned(),
        capabilities: line("CapEff:").trim().to_owned(),
    }
}

/// How many partitions there are, and the thread of the first.
fn started(config: ExecutionConfig) -> Result<(usize, Thread), SetupError> {
    let config = ExecutionConfig {
        datapath: DatapathConfig {
            backend: Backend::Socket,
            ..DatapathConfig::default()
        },
        ..config
    };
    let registration = Registration::open("test", &config)?;
    // Nobody answers, and nobody needs to: the worker calls from its thread.
    let silent = UdpSocket::bind("127.0.0.1:0").unwrap();
    let (_, configuration) = configurations(settings(), settings());
    let target = ConnectTarget::new(silent.local_addr().unwrap(), "localhost").with_partition(0);
    let ignore = |_: &Connection, _: ConnectionEvent<'_>| EventStatus::Done;
    let connection = Connection::start(&registration, &configuration, &target, ignore).unwrap();
    let (sender, threads) = channel();
    connection
        .with_stats(move |_| sender.send(this_thread()).unwrap())
        .unwrap();
    let thread = threads.recv_timeout(TIMEOUT).unwrap();
    let partitions = registration.partition_count();
    registration.close();
    Ok((partitions, thread))
}

/// The processors of a list as the kernel writes it.
fn numbers(list: &str) -> Vec<usize> {
    let ranges = list.split(',').map(|range| {
        let (first, last) = range.split_once('-').unwrap_or((range, range));
        first.parse().unwrap()..=last.parse().unwrap()
    });
    ranges.flatten().collect()
}

#[test]
fn threads_run_where_and_as_their_flags_say() {
    let here = this_thread();
    let last = *numbers(&here.processors).last().unwrap();
    let with = |flags| {
        started(ExecutionConfig {
            processors: Some(vec![last]),
            flags,
            ..ExecutionConfig::default()
        })
    };
    let (partitions, bound) = with(ExecutionFlags::AFFINITIZE).unwrap();
    assert_eq!((partitions, bound.processors), (1, last.to_string()));
    assert_eq!(bound.policy, "0");
    let (_, anywhere) = with(ExecutionFlags::NO_IDEAL_PROC).unwrap();
    assert_eq!(anywhere, here);
    // Not everybody may.
    match with(ExecutionFlags::HIGH_PRIORITY) {
        Ok((_, thread)) => assert_eq!(thread.policy, "2"),
        Err(error) => assert!(error.to_string().contains("CAP_SYS_NICE"), "{error}"),
    }
}

#[test]
fn threads_give_up_their_capabilities_if_they_are_to_and_others_keep_theirs() {
    const NONE: &str = "0000000000000000";
    let here = this_thread();
    let config = ExecutionConfig {
        drop_capabilities: true,
        ..ExecutionConfig::default()
    };
    let (_, without) = started(config.clone()).unwrap();
    assert_eq!(without.capabilities, NONE);
    assert_eq!(this_thread(), here);
    let own = std::thread::spawn(|| {
        ringway::drop_capabilities().unwrap();
        this_thread().capabilities
    });
    assert_eq!(own.join().unwrap(), NONE);
    // The application's threads are the application's.
    let refused = Execution::create(&config, Vec::new()).unwrap_err();
    assert!(refused.to_string().contains("drop_capabilities"), "{refused}");
}

#[test]
fn profiles_say_how_many_threads_there_are_and_how_they_run() {
    let here = this_thread();
    let low_latency = ExecutionConfig::from(ExecutionProfile::LowLatency);
    assert_eq!(low_latency, ExecutionConfig::default());
    let (all, thread) = started(low_latency).unwrap();
    assert_eq!(thread.policy, "0");
    let throughput = ExecutionConfig::from(ExecutionProfile::MaxThroughput);
    assert_eq!(throughput.mode, ExecutionMode::MaxThroughput);
    let (pairs, _) = started(throughput).unwrap();
    assert_eq!(pairs, all.div_ceil(2));
    assert_eq!(started(ExecutionProfile::Scavenger.into()).unwrap(), (1, here));
    match started(ExecutionProfile::RealTime.into()) {
        Ok((partitions, thread)) => {
            assert_eq!((partitions, thread.policy.as_str()), (all, "2"));
            assert_eq!(numbers(&thread.processors).len(), 1);
        }
        Err(error) => assert!(error.to_string().contains("CAP_SYS_NICE"), "{error}"),
    }
}

#[test]
fn close_of_a_registration_ends_its_threads() {
    let threads = || {
        let tasks = fs::read_dir("/proc/self/task").unwrap();
        let names = tasks.filter_map(|task| fs::read_to_string(task.ok()?.path().join("comm")).ok());
        names.filter(|name| name.starts_with("closes/")).count()
    };
    let config = ExecutionConfig {
        processors: Some(vec![0, 0]),
        flags: ExecutionFlags::NO_IDEAL_PROC,
        ..ExecutionConfig::default()
    };
    let registration = Registration::open("closes", &config).unwrap();
    assert_eq!(threads(), 2);
    registration.close();
    // The kernel lists a thread for a moment longer than others can wait for it.
    let begun = Instant::now();
    while threads() > 0 {
        assert!(begun.elapsed() < TIMEOUT, "they go on");
        std::thread::yield_now();
    }
}

#[test]
fn contexts_of_the_application_are_where_threads_of_ours_would_be() {
    let config = ExecutionConfig {
        processors: Some(vec![0]),
        ..ExecutionConfig::default()
    };
    let contexts = ContextConfig::for_each_thread(&config).unwrap();
    let processors: Vec<_> = contexts.iter().map(|context| context.ideal_processor).collect();
    assert_eq!(Some(&processors), config.processors.as_ref());
    let (registration, executions) = Execution::create(&config, contexts).unwrap();
    assert_eq!((registration.partition_count(), executions.len()), (1, 1));
    // Contexts and the list contradict each other.
    let elsewhere = vec![ContextConfig::new(processors[0] + 1)];
    let refused = Execution::create(&config, elsewhere).unwrap_err();
    assert!(
        refused.to_string().contains("the contexts say where they run"),
        "{refused}"
    );
}

#[test]
fn context_without_an_event_queue_sleeps_until_there_is_work_beside_it_or_in_it() {
    let contexts = vec![ContextConfig::new(0)];
    let (registration, mut executions) = Execution::create(&ExecutionConfig::default(), contexts).unwrap();
    let mut execution = executions.remove(0);
    // Whoever waits elsewhere would wait for ever.
    let epoll = rustix::event::epoll::create(rustix::event::epoll::CreateFlags::CLOEXEC).unwrap();
    let refused = loop {
        let wait = execution.poll();
        match execution.begin_wait(wait, &epoll) {
            Ok(time) => assert_eq!(time, Some(Duration::ZERO)),
            Err(error) => break error,
        }
    };
    assert_eq!(refused.kind(), std::io::ErrorKind::InvalidInput);

    let begun = Instant::now();
    let is_ready = Arc::new(AtomicBool::new(false));
    let (ready, waker) = (Arc::clone(&is_ready), execution.waker());
    let other = std::thread::spawn(move || {
        std::thread::sleep(Duration::from_millis(20));
        ready.store(true, Ordering::Release);
        waker.wake();
        // What the context's owner hears next is from the registration.
        registration
    });
    while !is_ready.load(Ordering::Acquire) {
        let wait = execution.poll();
        execution
            .sleep_unless(wait, || is_ready.load(Ordering::Acquire))
            .unwrap();
    }
    let registration = other.join().unwrap();
    let closing = std::thread::spawn(move || registration.close());
    while !execution.has_ended() {
        let wait = execution.poll();
        execution.sleep_unless(wait, || false).unwrap();
    }
    closing.join().unwrap();
    assert!(begun.elapsed() < TIMEOUT, "it slept through what woke it");
}

#[test]
fn counters_are_complete_once_the_contexts_have_ended_however_busy_they_were() {
    for mode in [ExecutionMode::LowLatency, ExecutionMode::MaxThroughput] {
        let mut config = ExecutionConfig {
            mode,
            processors: Some(vec![0]),
            ..ExecutionConfig::default()
        };
        let contexts = ContextConfig::for_each_thread(&config).unwrap();
        config.processors = None;
        let (registration, mut executions) = Execution::create(&config, contexts).unwrap();
        // Nobody answers.
        let silent = UdpSocket::bind("127.0.0.1:0").unwrap();
        silent.set_nonblocking(true).unwrap();
        let (_, configuration) = configurations(settings(), settings());
        let target = ConnectTarget::new(silent.local_addr().unwrap(), "localhost");
        let ignore = |_: &Connection, _: ConnectionEvent<'_>| EventStatus::Done;
        let _connection = Connection::start(&registration, &configuration, &target, ignore).unwrap();
        let begun = Instant::now();
        // They never sleep.
        while silent.recv(&mut [0; 2048]).is_err() {
            for execution in &mut executions {
                execution.poll();
            }
            assert!(begun.elapsed() < TIMEOUT, "nothing is sent");
        }
        drop(executions);
        let stats = registration.stats()[0];
        assert_eq!(stats.worker.opened, 1, "{mode:?}");
        assert!(stats.device.sent_datagrams >= 1, "{mode:?}: {stats:?}");
    }
}
