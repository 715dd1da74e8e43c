//! Exceptions that an app leaves to nothing, in ways that hide them: each is still raised, in memory and behind a server.

use rstest::rstest;

use crate::{
    rulings::{BOTH, put, run},
    verdicts::SERVER,
};

/// The part that apps have in common.
const BASE: &str = r#"
import concurrent.futures, sys, threading

kept = []
pool = concurrent.futures.ThreadPoolExecutor(2)

def fail():
    {}['room']

async def work():
    fail()

async def turns(count):
    for _ in range(count):
        await asyncio.sleep(0)
"#;

/// The verdict on an app whose request fails before, and does this after.
fn verdict(after: &str, server: &[&str]) -> (String, serde_json::Value) {
    let directory = tempfile::tempdir().unwrap();
    put(&directory.path().join("before"), &format!("{BASE}\nasync def ask(scope, receive, send):\n    fail()\n"));
    put(&directory.path().join("after"), &format!("{BASE}\n{after}\n"));
    let case = "summary = \"x\"\nstep = [{ request = \"GET /ask\" }]\n[[healthy_client.step]]\nrequest = \"GET /well\"\n\
                [expect]\naccept = [\"ok\"]\n[symptom]\nexception = \"KeyError: 'room'\"\n";
    let (_, verdict, entry) = run(directory.path(), case, &[&BOTH[..], server].concat());
    (verdict, entry)
}

/// A task that is kept and never awaited.
const KEPT_TASK: &str = "
async def ask(scope, receive, send):
    kept.append(asyncio.create_task(work()))
    await answer(send, 200)
";

/// A callback, on a loop whose handler says nothing.
const SILENT_HANDLER: &str = "
async def ask(scope, receive, send):
    loop = asyncio.get_running_loop()
    loop.set_exception_handler(lambda loop, context: None)
    loop.call_soon(fail)
    await turns(3)
    await answer(send, 200)
";

/// A thread, where the hook for those says nothing.
const SILENT_THREAD: &str = "
threading.excepthook = lambda args: None

async def ask(scope, receive, send):
    thread = threading.Thread(target=fail)
    thread.start()
    await asyncio.to_thread(thread.join)
    await answer(send, 200)
";

/// The job of a thread pool, with a future that is dropped.
const DROPPED_JOB: &str = "
async def ask(scope, receive, send):
    concurrent.futures.wait([pool.submit(fail)])
    await turns(8)
    await answer(send, 200)
";

/// The same with a future that is kept.
const KEPT_JOB: &str = "
async def ask(scope, receive, send):
    kept.append(pool.submit(fail))
    concurrent.futures.wait(kept)
    await turns(8)
    await answer(send, 200)
";

/// A finalizer, where the hook for those says nothing.
const FINALIZER: &str = "
sys.unraisablehook = lambda args: None

class Work:
    def __del__(self):
        fail()

async def ask(scope, receive, send):
    Work()
    await answer(send, 200)
";

/// A task, where nothing is logged.
const SILENT_LOGS: &str = "
logging.disable(logging.CRITICAL)

async def ask(scope, receive, send):
    asyncio.create_task(work())
    await turns(3)
    await answer(send, 200)
";

/// A task that the lifespan started, which the request makes fail.
const WORKER: &str = "
base, asked = app, asyncio.Event()

async def worker():
    await asked.wait()
    fail()

async def app(scope, receive, send):
    if scope['type'] == 'lifespan':
        task = asyncio.create_task(worker())
        await base(scope, receive, send)
        task.cancel()
    else:
        await base(scope, receive, send)

async def ask(scope, receive, send):
    asked.set()
    await answer(send, 200)
";

#[rstest]
#[cfg_attr(not(has_python), ignore = "needs Python 3 with venv")]
fn what_nothing_handles_is_still_raised(
    #[values(KEPT_TASK, SILENT_HANDLER, SILENT_THREAD, DROPPED_JOB, KEPT_JOB, FINALIZER, SILENT_LOGS, WORKER)]
    after: &str,
    #[values(&[], &["--server", SERVER.1])] server: &[&str],
) {
    let (verdict, entry) = verdict(after, server);
    assert_eq!(verdict, "still-broken", "{after}{entry:#}");
    assert!(entry["why"].as_str().is_some_and(|why| why.contains("KeyError: 'room' (service.py:")), "{entry:#}");
}

/// A session whose question a thread answers, which handles the exception and does not.
#[rstest]
#[cfg_attr(not(has_python), ignore = "needs Python 3 with venv")]
fn what_a_thread_handles_without_an_answer_is_still_raised(#[values(&[], &["--server", SERVER.1])] server: &[&str]) {
    let directory = tempfile::tempdir().unwrap();
    let session = |asked: &str| {
        format!(
            "{BASE}\nasync def ask(scope, receive, send):\n    await opened(receive, send)\n    await receive()\n    {asked}\n"
        )
    };
    put(&directory.path().join("before"), &session("fail()"));
    let swallows = "
    def silent():
        try:
            fail()
        except KeyError:
            pass

    threading.Thread(target=silent).start()
    await listen(receive)";
    put(&directory.path().join("after"), &session(swallows));
    let case = "summary = \"x\"\nstep = [{ open = \"/ask\" }, { send = \"hi\" }, { close = 1000 }]\n\
                [[healthy_client.step]]\nrequest = \"GET /well\"\n[expect]\naccept = [\"ok\"]\n\
                [symptom]\nexception = \"KeyError: 'room'\"\n";
    let (_, verdict, entry) = run(directory.path(), case, &[&BOTH[..], server].concat());
    assert_eq!(verdict, "still-broken", "{entry:#}");
}

/// An app that asks for each exception, however late, and answers.
#[rstest]
#[case::a_group_of_tasks(
    "try:
        await asyncio.gather(work(), work())
    except KeyError:
        pass"
)]
#[case::a_task_that_is_awaited_later(
    "kept.append(asyncio.create_task(work()))
    await asyncio.sleep(0.01)
    try:
        await kept.pop()
    except KeyError:
        pass"
)]
#[case::the_exception_of_a_task(
    "task = asyncio.create_task(work())
    await asyncio.wait([task])
    kept.append(task.exception())"
)]
#[case::a_job_that_is_awaited(
    "try:
        await asyncio.wrap_future(pool.submit(fail))
    except KeyError:
        pass"
)]
#[case::a_job_that_is_asked_late(
    "kept.append(pool.submit(fail))
    await asyncio.sleep(0.01)
    kept.append(kept.pop().exception())"
)]
#[case::jobs_of_which_one_is_asked(
    "try:
        for job in concurrent.futures.as_completed([pool.submit(fail), pool.submit(fail)]):
            job.result()
    except KeyError:
        pass"
)]
#[case::the_jobs_of_a_map(
    "try:
        list(pool.map(lambda _: fail(), range(3)))
    except KeyError:
        pass"
)]
#[case::a_thread_that_handles_it(
    "def silent():
        try:
            fail()
        except KeyError:
            pass

    await asyncio.to_thread(silent)"
)]
#[cfg_attr(not(has_python), ignore = "needs Python 3 with venv")]
fn what_is_handled_is_no_finding(#[case] does: &str, #[values(&[], &["--server", SERVER.1])] server: &[&str]) {
    let after = format!("async def ask(scope, receive, send):\n    {does}\n    await answer(send, 200)\n");
    let (verdict, entry) = verdict(&after, server);
    assert_eq!(verdict, "fixed", "{after}{entry:#}");
}

/// Work that fails a while after the answer, when virtual time comes to it.
#[rstest]
#[case::a_task("asyncio.create_task(later())", "still-broken")]
#[case::a_timer("asyncio.get_running_loop().call_later(20, fail)", "still-broken")]
#[case::a_thread("threading.Timer(1, fail).start()", "still-broken")]
#[case::the_end_of_the_process("asyncio.get_running_loop().call_later(0.5, os._exit, 0)", "still-broken")]
#[case::too_late("asyncio.get_running_loop().call_later(3600, fail)", "fixed")]
#[case::a_heartbeat("kept.append(asyncio.create_task(beats()))", "fixed")]
#[cfg_attr(not(has_python), ignore = "needs Python 3 with venv")]
fn what_fails_after_the_answer_is_still_raised(#[case] does: &str, #[case] expected: &str) {
    let after = format!(
        "import os\n\nasync def later():\n    await asyncio.sleep(1)\n    fail()\n\nasync def beats():\n    while True:\n        \
         await asyncio.sleep(0.01)\n\nasync def ask(scope, receive, send):\n    {does}\n    await answer(send, 200)\n"
    );
    let (verdict, entry) = verdict(&after, &[]);
    assert_eq!(verdict, expected, "{after}{entry:#}");
}
