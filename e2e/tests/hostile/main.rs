//! What a hostile user can do to tokenscope: every attack runs beside honest load, within the chart's own memory limits.
//!
//! Three people attack: an author of pods (the role `edit` in one namespace), an editor of policies there, and a neighbour
//! on the pod network, who can connect to the ports of the webhook and has no account at all. For each attack the honest
//! creates keep their times, none is admitted without its grant, and no process ends, grows beyond its limit, or stops to
//! answer its probes.
//!
//! The attacks run one after the other, so this program is its own harness. It takes a filter as any test program does, and
//! `TOKENSCOPE_NIGHTLY=1` makes each attack last a minute instead of some seconds. Times are judged when
//! `TOKENSCOPE_PROGRAMS` names a folder of optimised programs. An attack through the API server that makes honest creates
//! late is made again at the end without tokenscope, since the API server's own work is not what is judged. One that went
//! wrong while the machine stood still is made once more.

mod accounts;
mod attack;
mod field;
mod health;
mod honest;
mod http1;
mod http2;
mod judgement;
mod limit;
mod pauses;
mod pods;
mod policies;
mod report;
mod reviews;
mod stored;
mod wire;

use std::process::ExitCode;
use std::sync::Arc;
use std::time::Instant;

use anyhow::Result;
use rustix::process::{getpriority_process, setpriority_process};
use tokio::runtime::Builder;

use crate::attack::Attack;
use crate::field::Field;
use crate::judgement::{late, times_are_judged};
use crate::pauses::Pauses;
use crate::report::{Outcome, table};

fn main() -> ExitCode {
    let arguments: Vec<String> = std::env::args().skip(1).collect();
    let filters: Vec<&String> = arguments.iter().filter(|argument| !argument.starts_with('-')).collect();
    let all = attacks();
    let total = all.len();
    let wanted: Vec<Attack> = all
        .into_iter()
        .filter(|attack| filters.is_empty() || filters.iter().any(|filter| attack.name.contains(*filter)))
        .collect();
    if arguments.iter().any(|argument| argument == "--list") {
        for attack in &wanted {
            println!("{}: test", attack.name);
        }
        return ExitCode::SUCCESS;
    }
    println!("\nrunning {} tests", wanted.len());
    let started = Instant::now();
    let outcomes = match run(&wanted) {
        Ok(outcomes) => outcomes,
        Err(error) => {
            println!("the servers for the attacks didn't start: {error:#}");
            Vec::new()
        }
    };
    let passed = outcomes.iter().filter(|outcome| outcome.failures.is_empty()).count();
    let failed = wanted.len() - passed;
    if !outcomes.is_empty() {
        println!("\n{}", table(&outcomes));
    }
    println!(
        "test result: {}. {passed} passed; {failed} failed; 0 ignored; 0 measured; {} filtered out; finished in {:.2}s\n",
        if failed == 0 { "ok" } else { "FAILED" },
        total - wanted.len(),
        started.elapsed().as_secs_f64()
    );
    if failed == 0 {
        ExitCode::SUCCESS
    } else {
        ExitCode::FAILURE
    }
}

fn attacks() -> Vec<Attack> {
    let by_users = [
        pods::attacks(),
        stored::attacks(),
        accounts::attacks(),
        policies::attacks(),
    ];
    let by_neighbours = [reviews::attacks(), http1::attacks(), http2::attacks()];
    let by_users = by_users.into_iter().flatten().map(Attack::through_api_server);
    by_users.chain(by_neighbours.into_iter().flatten()).collect()
}

fn run(attacks: &[Attack]) -> Result<Vec<Outcome>> {
    if attacks.is_empty() {
        return Ok(Vec::new());
    }
    let main = Builder::new_multi_thread().worker_threads(2).enable_all().build()?;
    let honest = Builder::new_multi_thread().worker_threads(1).enable_all().build()?;
    let attackers = Builder::new_multi_thread()
        .worker_threads(2)
        .on_thread_start(give_way)
        .enable_all()
        .build()?;
    main.block_on(async {
        let field = Arc::new(Field::open(honest.handle().clone(), attackers.handle().clone()).await?);
        let mut outcomes = Vec::new();
        for attack in attacks {
            let outcome = run_undisturbed(attack, &field).await;
            println!(
                "  {}: {}",
                attack.name,
                if late(&outcome).is_empty() { "in time" } else { "late" }
            );
            outcomes.push(outcome);
        }
        if outcomes.iter().any(|outcome| !late(outcome).is_empty()) {
            attack_again_without_tokenscope(&field, attacks, &mut outcomes).await?;
        }
        outcomes.iter_mut().for_each(conclude);
        if outcomes.iter().any(|outcome| !outcome.failures.is_empty()) {
            field.keep_logs();
        }
        Ok(outcomes)
    })
}

/// An attack that did not come out well while the machine stood still is made once more: what counts is what the attack does.
async fn run_undisturbed(attack: &Attack, field: &Arc<Field>) -> Outcome {
    let pauses = Pauses::watch();
    let outcome = attack.run(field).await;
    let is_well = outcome.failures.is_empty() && late(&outcome).is_empty();
    match pauses.standstill() {
        Some(standstill) if !is_well => {
            println!(
                "  {}: made once more, because the machine stood still for {standstill:.1?}: {:?}",
                attack.name, outcome.failures
            );
            attack.run(field).await
        }
        _ => outcome,
    }
}

/// What the API server itself takes for an attack is not what tokenscope adds, so what was late is made again without it.
async fn attack_again_without_tokenscope(
    field: &Arc<Field>,
    attacks: &[Attack],
    outcomes: &mut [Outcome],
) -> Result<()> {
    field.take_tokenscope_away().await?;
    for (attack, outcome) in attacks.iter().zip(outcomes) {
        if attack.through_api_server && !late(outcome).is_empty() {
            outcome.without = Some(attack.run_without(field).await?);
        }
    }
    Ok(())
}

/// Prints the verdict of an attack.
fn conclude(outcome: &mut Outcome) {
    let late = late(outcome);
    if times_are_judged() {
        outcome.failures.extend(late);
    } else {
        for note in late {
            println!("    not judged with unoptimised programs: {note}");
        }
    }
    let verdict = if outcome.failures.is_empty() { "ok" } else { "FAILED" };
    println!("test {} ... {verdict}", outcome.name);
    for failure in &outcome.failures {
        println!("    {failure}");
    }
}

/// Attackers have machines of their own, so what they do here leaves the processors to those who are attacked.
fn give_way() {
    const NICER: i32 = 19;
    // The kernel may refuse; then the attackers compete, which makes the tests harder.
    let _ = getpriority_process(None).and_then(|own| setpriority_process(None, own + NICER));
}
