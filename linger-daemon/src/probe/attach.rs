//! Loads and attaches a plan, as a whole or not at all.

use aya::Ebpf;
use linger_ebpf::{Constants, FLOOR, HINTS, MAX_CLOSES, Offsets, Plan, key_field};
use tracing::warn;

use super::btf::{self, Kernel, KernelError};
use super::error::{AttachError, PlanError, ProbeError, with_causes};
use super::hooks::{Hook, Point, copies_of, hooks};
use super::link::{Attached, attach, program};
use super::load::{self, loader};
use super::object;
use super::options::LoadOptions;
use super::owner::Owner;
use super::pins::Pins;
use super::programs::{Links, Maps, Programs};
use super::reachability::first_unreached;
use super::traits::{KernelTraits, leaves_old_names};

/// Attached programs. Dropping this detaches and unloads them, unless they are pinned.
pub struct Attachment {
    /// The plan in use.
    pub plan: Plan,
    /// The hooks, with that of the return of close(2), which is attached only while needed.
    pub hooks: Vec<Hook>,
    /// The programs, until they are taken.
    pub programs: Programs,
    /// Keeps the programs attached, unless they are pinned.
    pub(super) _links: Vec<Attached>,
}

/// A plan whose programs are not attached yet.
pub struct LoadedPlan {
    plan: Plan,
    ebpf: Ebpf,
    pub(super) maps: Maps,
}

/// Everything needed for loading, read once. Drop it when everything is loaded: it holds the kernel's types.
pub struct Loader {
    /// The kernel's types.
    pub kernel: Kernel,
    offsets: Offsets,
    options: LoadOptions,
    /// The kernel's traits.
    pub traits: KernelTraits,
}

impl Loader {
    /// Reads the running kernel's types and finds the fields that the programs read.
    pub fn new(options: LoadOptions) -> Result<Self, KernelError> {
        let kernel = Kernel::running()?;
        let (offsets, _) = kernel.offsets(options.key_fields)?;
        Ok(Self {
            traits: KernelTraits::running(&kernel),
            kernel,
            offsets,
            options,
        })
    }

    /// Creates the maps for a plan.
    pub fn load(&self, plan: Plan) -> Result<LoadedPlan, PlanError> {
        let copies = copies_of(plan, self.traits);
        let mut ebpf = self
            .make_maps(copies)
            .map_err(|why| PlanError::new(plan, &"maps", why))?;
        let names: Vec<_> = ebpf.maps().map(|(name, _)| name.to_owned()).collect();
        // Maps of data sections, named after them (`.bss`), belong to the programs.
        let names = names.into_iter().filter(|name| !name.starts_with('.'));
        let maps = names.filter_map(|name| ebpf.take_map(&name).map(|map| (name, map)));
        let maps = maps.collect();
        Ok(LoadedPlan { plan, ebpf, maps })
    }

    /// Attaches every hook of a plan, and pins their links if `pins` is given. If one fails, the hooks before it
    /// are detached.
    pub fn attach(
        &self,
        loaded: LoadedPlan,
        pins: Option<&Pins>,
    ) -> Result<Attachment, ProbeError> {
        let LoadedPlan {
            plan,
            mut ebpf,
            mut maps,
        } = loaded;
        self.check_reached(plan, &self.hooks_without_copies(plan))?;
        let hooks = self.hooks(plan);
        // The hook that sees returns is attached when needed.
        let (later, now): (Vec<_>, Vec<_>) = hooks.iter().partition(|hook| hook.sees_returns());
        let attached = self.attach_hooks(&mut ebpf, plan, &now, pins.is_some())?;
        self.load_programs(&mut ebpf, &later)
            .map_err(|(hook, why)| PlanError::new(plan, &hook.point, why))?;
        let program = |&hook: &Hook| match program(&ebpf, hook) {
            Ok(program) => Ok((hook, program)),
            Err(why) => Err(PlanError::new(plan, &hook.point, why)),
        };
        let programs = hooks.iter().map(program).collect::<Result<Vec<_>, _>>()?;
        let mut detachable = Vec::new();
        let mut others = Vec::new();
        for (hook, attached) in attached {
            match pins {
                Some(pins) => pins.pin_link(hook, &attached.into_link())?,
                None if hook.point == Point::SockRelease => {
                    detachable.push((hook, attached.into_link()));
                }
                None => others.push(attached),
            }
        }
        let links = pins.map_or(Links::Held(detachable), Pins::links);
        if let Some(pins) = pins {
            pins.pin_programs(&programs)?;
            pins.pin_metadata(&mut maps, self.options.metadata(plan, self.traits))?;
        }
        let programs = Programs::new(programs, links, Owner::here()).map_err(|error| {
            let why = AttachError::Refused(error.to_string());
            PlanError::new(plan, &"kprobe_profile", why)
        })?;
        Ok(Attachment {
            plan,
            hooks,
            programs,
            _links: others,
        })
    }

    /// Attaches the programs of another object, which have the same names, to the hooks of a plan, except copies and
    /// the hook that is attached only while closes wait. They stay attached as long as the returned value lives.
    pub fn attach_object(&self, ebpf: &mut Ebpf, plan: Plan) -> Result<impl Sized, PlanError> {
        let mut hooks = self.hooks_without_copies(plan);
        hooks.retain(|hook| !hook.sees_returns());
        self.attach_hooks(ebpf, plan, &hooks, false)
    }

    /// Refuses a plan if the end of a connection does not reach all of these hooks: a function in the kernel's
    /// types may be inlined at its callers.
    pub fn check_reached(&self, plan: Plan, hooks: &[Hook]) -> Result<(), PlanError> {
        let mut ebpf = loader().btf(None).load(FLOOR).map_err(|error| {
            PlanError::new(plan, &"maps", AttachError::Refused(with_causes(&error)))
        })?;
        let _attached = self.attach_hooks(&mut ebpf, plan, hooks, false)?;
        match first_unreached(&ebpf, hooks) {
            Ok(None) => Ok(()),
            Ok(Some(hook)) => Err(PlanError::new(
                plan,
                &hook.point,
                AttachError::Missing("connections end without it; it may be inlined".into()),
            )),
            Err(error) => {
                warn!(
                    "whether the ends of connections reach all hooks of the plan {} is not known, without \
                     a connection over loopback: {error}",
                    plan.name()
                );
                Ok(())
            }
        }
    }

    fn hooks_without_copies(&self, plan: Plan) -> Vec<Hook> {
        let mut hooks = self.hooks(plan);
        hooks.retain(|hook| !hook.is_copy());
        hooks
    }

    /// The hooks of a plan on this kernel, in the order of attaching.
    #[must_use]
    pub fn hooks(&self, plan: Plan) -> Vec<Hook> {
        hooks(plan, self.options.key_fields, self.traits)
    }

    /// Attaches these hooks of a plan, as long as the returned value lives.
    fn attach_hooks(
        &self,
        ebpf: &mut Ebpf,
        plan: Plan,
        hooks: &[Hook],
        is_pinnable: bool,
    ) -> Result<Vec<(Hook, Attached)>, PlanError> {
        let failed = |(hook, why): (Hook, _)| PlanError::new(plan, &hook.point, why);
        // The first hook of a function shows whether functions can be hooked here, before much is loaded.
        let first = hooks
            .iter()
            .position(|hook| hook.point.function().is_some());
        let (first, rest) = hooks.split_at(first.map_or(0, |at| at + 1));
        let mut attached = Vec::new();
        for part in [first, rest] {
            self.load_programs(ebpf, part).map_err(failed)?;
            for &hook in part {
                let link = attach(ebpf, hook, is_pinnable).map_err(|why| failed((hook, why)))?;
                attached.extend(link.map(|link| (hook, link)));
            }
        }
        Ok(attached)
    }

    /// Loads and attaches a plan and detaches it again.
    pub fn try_plan(&self, plan: Plan) -> Result<(), PlanError> {
        self.check_reached(plan, &self.hooks_without_copies(plan))?;
        let mut loaded = self.load(plan)?;
        self.attach_hooks(&mut loaded.ebpf, plan, &self.hooks(plan), false)
            .map(drop)
    }

    /// Loads and attaches one hook alone and detaches it again.
    pub fn try_hook(&self, hook: Hook) -> Result<(), AttachError> {
        let mut ebpf = self.make_maps(Constants::NO_COPIES)?;
        let loaded = self.load_programs(&mut ebpf, &[hook]);
        loaded.map_err(|(_, why)| why)?;
        attach(&ebpf, hook, false).map(drop)
    }

    /// Adapts the object to this kernel and creates its maps; no program is loaded yet. `copies` is that of
    /// [`Constants`].
    fn make_maps(&self, copies: u32) -> Result<Ebpf, AttachError> {
        let close_syscall = if self.traits.sees_returns {
            u32::try_from(nix::libc::SYS_close).expect("a small number")
        } else {
            Constants::NO_SYSCALL
        };
        let LoadOptions {
            key_fields,
            max_groups,
            ..
        } = self.options;
        let exes = key_fields & key_field::EXE != 0;
        let constants = Constants {
            offsets: self.offsets,
            key_fields,
            close_syscall,
            copies,
            leaves_old_names: leaves_old_names().into(),
        };
        let (rows, crowded_groups) = self.options.group_entries();
        let (orphan_slots, crowded_orphans) = self.options.orphan_entries();
        let has_copies = copies != Constants::NO_COPIES;
        let resets = if has_copies { HINTS } else { 1 };
        let object = object::for_kernel(&self.kernel, &constants)?;
        loader()
            .btf(None)
            .map_max_entries("NOTES", max_groups)
            .map_max_entries("CGROUPS", max_groups)
            .map_max_entries("GROUP_SLOTS", rows)
            .map_max_entries("ROWS", rows)
            .map_max_entries("LEDGER", crowded_groups)
            .map_max_entries("NUMBERS", max_groups)
            .map_max_entries("EXES", if exes { max_groups } else { 1 })
            .map_max_entries("EXITING", if exes { MAX_CLOSES } else { 1 })
            .map_max_entries("ORPHAN_SLOTS", orphan_slots)
            .map_max_entries("ORPHANS", crowded_orphans)
            .map_max_entries("RESETS", resets)
            .load(&object)
            .map_err(|error| AttachError::Refused(with_causes(&error)))
    }

    /// Loads the programs of these hooks. Fails with the first that does not load.
    fn load_programs(&self, ebpf: &mut Ebpf, hooks: &[Hook]) -> Result<(), (Hook, AttachError)> {
        let mut named = Vec::new();
        for &hook in hooks {
            let (kind, name, found) = match (hook.point, hook.point.function()) {
                (Point::BtfTracepoint(name), _) => {
                    ("tracepoint", name, self.kernel.tracepoint(name))
                }
                (_, Some(name)) => ("function", name, self.kernel.function(name)),
                _ => continue,
            };
            let missing = || AttachError::Missing(format!("the kernel has no {kind} {name}"));
            named.push(found.ok_or_else(|| (hook, missing()))?);
        }
        load::in_parallel(ebpf, hooks, btf::minimal(&named).as_ref())
    }
}
