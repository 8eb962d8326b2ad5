//! Asking a subsystem for its namespaces: from a fresh connection to the name, size and format of each.

use roadstead_nvme::Cqe;
use roadstead_nvme::fabrics::Connect;
use roadstead_nvme::identify::cns;
use roadstead_nvme::nqn::Nqn;
use roadstead_nvme::property::{self, Configuration};

use crate::admin::{Control, Names, NamespaceData, namespace_list};
use crate::auth::Admission;
use crate::config::Identity;
use crate::setup::{ADMIN_SQSIZE, SetUpError, ask_ready, is_ready};

/// Most namespaces that are looked at: those that one list has.
pub const LISTED_MAX: usize = 1024;

/// A namespace as the subsystem describes it.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub struct Listed {
    /// Its identifier.
    pub nsid: u32,
    /// Its names.
    pub names: Names,
    /// Size and bytes of a block; `None`: a format that no block device has.
    pub size: Option<(u64, u32)>,
}

/// What to do next.
#[derive(Debug, PartialEq, Eq)]
pub enum ListingStep {
    /// Send this command, and hand its completion to [`Listing::answer`].
    Send(Control),
    /// The controller is not ready yet: the same, after [`crate::READY_POLL`].
    Later(Control),
    /// The subsystem's namespaces; whether there may be more than were looked at.
    Done(Vec<Listed>, bool),
}

#[derive(Debug, Clone, Copy)]
enum Step {
    Connect,
    Authenticate,
    Enable,
    Ready,
    List,
    Descriptors(u32),
    Namespace(u32, Names),
}

/// The commands on a connection to a subsystem, one after the other.
#[derive(Debug)]
pub struct Listing {
    step: Step,
    admission: Admission,
    /// Not looked at yet, the next one last.
    left: Vec<u32>,
    listed: Vec<Listed>,
    is_cut_off: bool,
}

impl Listing {
    /// The machine, and the first command.
    pub fn start(identity: &Identity, subsystem: &Nqn) -> (Self, Control) {
        let queue = Connect {
            qid: 0,
            sqsize: ADMIN_SQSIZE,
            attributes: 0,
            // It ends with its answer.
            kato_ms: 0,
        };
        let this = Self {
            step: Step::Connect,
            admission: Admission::of_admin_queue(identity, subsystem),
            left: Vec::new(),
            listed: Vec::new(),
            is_cut_off: false,
        };
        (this, Control::connect(identity, subsystem, queue, None))
    }

    /// The host is let in.
    pub fn is_let_in(&self) -> bool {
        !matches!(self.step, Step::Connect | Step::Authenticate)
    }

    /// Takes in the answer to the last command.
    ///
    /// # Errors
    /// [`SetUpError`]: the subsystem cannot be looked at.
    pub fn answer(&mut self, cqe: &Cqe, data: &[u8]) -> Result<ListingStep, SetUpError> {
        let status = cqe.status();
        let what = match self.step {
            Step::Enable => "Property Set",
            Step::Ready => "Property Get",
            Step::List => "Identify Active Namespaces",
            // The way in looks at its failures itself. Controllers before version 1.3 tell no names; and what was in the
            // list may have gone since.
            Step::Connect | Step::Authenticate | Step::Descriptors(_) | Step::Namespace(..) => "",
        };
        if !status.is_success() && !what.is_empty() {
            return Err(SetUpError::Refused { what, status });
        }
        let (step, command) = match self.step {
            Step::Connect | Step::Authenticate => {
                if let Some(next) = self.admission.answer(cqe, data)? {
                    self.step = Step::Authenticate;
                    return Ok(ListingStep::Send(next));
                }
                let enabled = Configuration::enabled().0;
                (Step::Enable, Control::property_set(property::CC, enabled))
            }
            Step::Enable => (Step::Ready, ask_ready()),
            Step::Ready if !is_ready(cqe)? => return Ok(ListingStep::Later(ask_ready())),
            Step::Ready => (Step::List, Control::identify(cns::ACTIVE_NAMESPACES, 0)),
            Step::List => {
                self.left = namespace_list(data).take(LISTED_MAX).collect();
                self.is_cut_off = self.left.len() == LISTED_MAX;
                self.left.reverse();
                return Ok(self.next());
            }
            Step::Descriptors(nsid) => {
                let names = match status.is_success() {
                    true => Names::parse(data),
                    false => Names::default(),
                };
                let identify = Control::identify(cns::NAMESPACE, nsid);
                (Step::Namespace(nsid, names), identify)
            }
            Step::Namespace(nsid, names) => {
                // An inactive namespace is all zeroes.
                let is_there = status.is_success() && data.iter().any(|byte| *byte != 0);
                if is_there {
                    let size = NamespaceData::parse(data).map(|namespace| {
                        let bytes = u64::from(namespace.block_bytes);
                        (
                            namespace.blocks.saturating_mul(bytes),
                            namespace.block_bytes,
                        )
                    });
                    self.listed.push(Listed { nsid, names, size });
                }
                return Ok(self.next());
            }
        };
        self.step = step;
        Ok(ListingStep::Send(command))
    }

    fn next(&mut self) -> ListingStep {
        match self.left.pop() {
            Some(nsid) => {
                self.step = Step::Descriptors(nsid);
                ListingStep::Send(Control::identify(cns::NAMESPACE_DESCRIPTORS, nsid))
            }
            None => ListingStep::Done(std::mem::take(&mut self.listed), self.is_cut_off),
        }
    }
}

#[cfg(test)]
mod tests {
    use super::*;
    use roadstead_nvme::Status;
    use roadstead_nvme::identify::{IdentifyNamespace, NamespaceDescriptor};
    use uuid::Uuid;
    use zerocopy::IntoBytes;

    fn ok(result: u64) -> Cqe {
        Cqe::new(0, Status::SUCCESS, result)
    }

    /// A machine that has got the list of these namespaces.
    fn listed(nsids: &[u32]) -> (Listing, ListingStep) {
        let identity = Identity::named(Nqn::new("nqn.2026-11.io.roadstead:h").unwrap());
        let nqn = Nqn::new("nqn.2014-08.com.example:a").unwrap();
        let (mut machine, _) = Listing::start(&identity, &nqn);
        assert!(!machine.is_let_in());
        machine.answer(&ok(1), &[]).unwrap();
        assert!(machine.is_let_in());
        machine.answer(&ok(0), &[]).unwrap();
        let later = machine.answer(&ok(0), &[]).unwrap();
        assert!(matches!(later, ListingStep::Later(_)));
        machine.answer(&ok(1), &[]).unwrap();
        let mut list: Vec<u8> = nsids.iter().flat_map(|n| n.to_le_bytes()).collect();
        list.resize(4096, 0);
        let step = machine.answer(&ok(0), &list).unwrap();
        (machine, step)
    }

    fn namespace(blocks: u64, shift: u8, metadata: u16) -> Vec<u8> {
        let mut page = IdentifyNamespace::zeroed();
        page.size = blocks.into();
        page.lba_formats[0].data_shift = shift;
        page.lba_formats[0].metadata_bytes = metadata.into();
        page.as_bytes().to_vec()
    }

    #[test]
    fn every_namespace_is_asked_for_its_names_and_its_size() {
        let (mut machine, _) = listed(&[2, 7, 9]);
        let mut names = Vec::new();
        NamespaceDescriptor::Uuid([1; 16]).write(&mut names);
        machine.answer(&ok(0), &names).unwrap();
        machine.answer(&ok(0), &namespace(8, 12, 0)).unwrap();
        // Number 7 went since.
        let refused = Cqe::new(0, Status::INVALID_NAMESPACE, 0);
        machine.answer(&refused, &[]).unwrap();
        machine.answer(&refused, &[]).unwrap();
        machine.answer(&ok(0), &[0; 4096]).unwrap();
        let step = machine.answer(&ok(0), &namespace(8, 12, 8)).unwrap();
        let wanted = [
            Listed {
                nsid: 2,
                names: Names {
                    uuid: Some(Uuid::from_bytes([1; 16])),
                    nguid: None,
                },
                size: Some((8 << 12, 4096)),
            },
            Listed {
                nsid: 9,
                names: Names::default(),
                size: None,
            },
        ];
        assert_eq!(step, ListingStep::Done(wanted.to_vec(), false));
    }

    #[test]
    fn a_subsystem_may_have_none_or_more_than_are_looked_at() {
        assert_eq!(listed(&[]).1, ListingStep::Done(Vec::new(), false));
        let many: Vec<u32> = (1..=1024).collect();
        let (mut machine, mut step) = listed(&many);
        let mut commands = 0;
        while let ListingStep::Send(_) = step {
            step = machine.answer(&ok(0), &[0; 4096]).unwrap();
            commands += 1;
        }
        assert_eq!(
            (commands, step),
            (2048, ListingStep::Done(Vec::new(), true))
        );
    }

    #[test]
    fn a_host_that_is_not_let_in_hears_why() {
        let identity = Identity::named(Nqn::new("nqn.2026-11.io.roadstead:h").unwrap());
        let nqn = Nqn::new("nqn.2014-08.com.example:a").unwrap();
        let (mut machine, _) = Listing::start(&identity, &nqn);
        let refused = Cqe::new(0, Status::CONNECT_INVALID_HOST, 0);
        let error = machine.answer(&refused, &[]).unwrap_err();
        assert!(error.to_string().contains("Connect refused"), "{error}");
    }
}
