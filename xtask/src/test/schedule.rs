//! The order and concurrency of the steps.

use std::collections::VecDeque;
use std::sync::{Condvar, Mutex, MutexGuard, PoisonError};
use std::thread;

use super::step::{Done, Step};

/// The steps that have not begun, and the state of those that have.
pub(super) struct Schedule {
    state: Mutex<State>,
    changed: Condvar,
}

struct State {
    /// Ordered by stage; within a stage, steps that run alone come last.
    waiting: VecDeque<Step>,
    running: usize,
    is_alone: bool,
    done: Vec<Done>,
}

impl Schedule {
    pub(super) fn new(mut steps: Vec<Step>) -> Self {
        steps.sort_by_key(|step| (step.stage, step.alone));
        Self {
            state: Mutex::new(State {
                waiting: steps.into(),
                running: 0,
                is_alone: false,
                done: Vec::new(),
            }),
            changed: Condvar::new(),
        }
    }

    /// Performs the steps in this number of lanes. A free lane goes on to the next stage, but no step begins once one
    /// of an earlier stage has failed. Returns the steps done, and those that were not begun.
    pub(super) fn perform(
        self,
        lanes: usize,
        perform: impl Fn(&Step) -> Done + Sync,
    ) -> (Vec<Done>, Vec<Step>) {
        thread::scope(|scope| {
            for _ in 0..lanes {
                scope.spawn(|| {
                    while let Some(step) = self.begin() {
                        let done = perform(&step);
                        self.end(done);
                    }
                });
            }
        });
        let state = self.state.into_inner();
        let state = state.unwrap_or_else(PoisonError::into_inner);
        (state.done, state.waiting.into())
    }

    /// Waits until the next step may begin, and takes it. Returns `None` if there is none or an earlier stage failed.
    fn begin(&self) -> Option<Step> {
        let mut state = self.lock();
        while state.must_wait() {
            let waited = self.changed.wait(state);
            state = waited.unwrap_or_else(PoisonError::into_inner);
        }
        let next = state.waiting.front()?;
        if state.has_failed_before(next) {
            return None;
        }
        let step = state.waiting.pop_front()?;
        state.is_alone = step.alone;
        state.running += 1;
        Some(step)
    }

    fn end(&self, done: Done) {
        let mut state = self.lock();
        state.running -= 1;
        state.is_alone = false;
        state.done.push(done);
        self.changed.notify_all();
    }

    fn lock(&self) -> MutexGuard<'_, State> {
        self.state.lock().unwrap_or_else(PoisonError::into_inner)
    }
}

impl State {
    /// Returns whether the next step must wait: a step is running alone, or the next one has to.
    fn must_wait(&self) -> bool {
        let next_is_alone = self.waiting.front().is_some_and(|step| step.alone);
        self.running > 0 && (self.is_alone || next_is_alone)
    }

    fn has_failed_before(&self, next: &Step) -> bool {
        let mut done = self.done.iter();
        done.any(|done| done.stage < next.stage && !done.passed())
    }
}

#[cfg(test)]
mod tests {
    use std::sync::atomic::{AtomicUsize, Ordering};
    use std::time::Duration;

    use super::super::step::tests::{done, step};
    use super::super::step::{Findings, Stage};
    use super::*;
    use crate::tally::Tally;

    fn passed(step: &Step) -> Done {
        Done {
            name: step.name.clone(),
            stage: step.stage,
            ..done(Some(Findings::Counted(Tally::PASSED)))
        }
    }

    fn names(done: &[Done]) -> Vec<&str> {
        done.iter().map(|done| done.name.as_str()).collect()
    }

    #[test]
    fn stages_run_in_order_with_lone_steps_last_in_each() {
        let alone = Step {
            alone: true,
            ..step("alone", Stage::Unit)
        };
        let steps = vec![
            step("rest", Stage::Rest),
            alone,
            step("unit", Stage::Unit),
            step("form", Stage::Form),
        ];
        let (done, left) = Schedule::new(steps).perform(1, passed);
        assert_eq!(names(&done), ["form", "unit", "alone", "rest"]);
        assert!(left.is_empty());
    }

    #[test]
    fn nothing_runs_beside_a_step_that_runs_alone() {
        let mut steps = Vec::new();
        for stage in [Stage::Form, Stage::Unit, Stage::First, Stage::Rest] {
            steps.extend([step("a", stage), step("b", stage), step("c", stage)]);
            steps.push(Step {
                alone: true,
                ..step("alone", stage)
            });
        }
        let running = AtomicUsize::new(0);
        let (done, _) = Schedule::new(steps).perform(3, |step| {
            let beside = running.fetch_add(1, Ordering::SeqCst);
            assert!(beside == 0 || !step.alone, "{}", step.name);
            thread::sleep(Duration::from_millis(2));
            assert!(!step.alone || running.load(Ordering::SeqCst) == 1);
            running.fetch_sub(1, Ordering::SeqCst);
            passed(step)
        });
        assert_eq!(done.len(), 16);
    }

    #[test]
    fn a_failure_ends_its_stage_and_no_later_one_begins() {
        let steps = vec![
            step("fails", Stage::Form),
            step("beside", Stage::Form),
            step("later", Stage::Unit),
        ];
        let (done, left) = Schedule::new(steps).perform(1, |step| Done {
            findings: if step.name == "fails" {
                Err("it broke".into())
            } else {
                Ok(Findings::Counted(Tally::PASSED))
            },
            ..passed(step)
        });
        assert_eq!(names(&done), ["fails", "beside"]);
        let left: Vec<_> = left.iter().map(|step| step.name.as_str()).collect();
        assert_eq!(left, ["later"]);
    }
}
