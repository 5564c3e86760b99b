//! From edits to a JSON Patch (RFC 6902), written straight to text.

use std::fmt::Write as _;

use tokenscope_core::WorkloadApi;
use tokenscope_core::json::push_string;

use crate::plan::{Content, Edit, Mount, NewVolume, Place, TokenFile, Value, Variable};

/// The patch's text. No edits give an empty list, which needs no patch at all.
pub fn json(edits: &[Edit<'_>]) -> String {
    let mut patch = Patch {
        // Variables are most of it: an edit that adds five has 700 bytes, any other at most half of that.
        text: String::with_capacity(512 * (edits.len() + 1)),
    };
    for edit in edits {
        patch.edit(edit);
    }
    patch.finish()
}

struct Patch {
    text: String,
}

impl Patch {
    fn finish(mut self) -> String {
        if self.text.is_empty() {
            self.text.push('[');
        }
        self.text.push(']');
        self.text
    }

    fn edit(&mut self, edit: &Edit<'_>) {
        match edit {
            Edit::AddVolume { volume, none } => {
                self.add(if *none { "/spec/volumes" } else { "/spec/volumes/0" });
                self.value("");
                self.listed(*none, |patch| patch.volume(volume));
            }
            Edit::ReplaceVolume { volume, new } => {
                self.replace("/spec/volumes/");
                self.number(*volume);
                self.value("");
                self.volume(new);
                self.end();
            }
            Edit::ReplaceTokens { volume, tokens } => {
                self.replace("/spec/volumes/");
                self.number(*volume);
                self.value("/projected/sources");
                self.sources(tokens);
                self.end();
            }
            Edit::RemoveVolume { volume } => {
                self.remove("/spec/volumes/");
                self.number(*volume);
                self.end_of_path();
            }
            Edit::AddVariables {
                container,
                variables,
                none: true,
            } => {
                self.add_to(*container, "/env");
                self.list(variables, Self::variable);
                self.end();
            }
            Edit::AddVariables {
                container, variables, ..
            } => {
                for variable in variables {
                    self.add_to(*container, "/env/-");
                    self.variable(variable);
                    self.end();
                }
            }
            Edit::ReplaceVariable {
                container,
                index,
                variable,
            } => {
                self.replace_in(*container, "/env/", *index);
                self.variable(variable);
                self.end();
            }
            Edit::RemoveVariable { container, index } => self.remove_in(*container, "/env/", *index),
            Edit::AddMount { container, mount, none } => {
                self.add_to(*container, if *none { "/volumeMounts" } else { "/volumeMounts/-" });
                self.listed(*none, |patch| patch.mount(*mount));
            }
            Edit::ReplaceMount {
                container,
                index,
                mount,
            } => {
                self.replace_in(*container, "/volumeMounts/", *index);
                self.mount(*mount);
                self.end();
            }
            Edit::RemoveMount { container, index } => self.remove_in(*container, "/volumeMounts/", *index),
            Edit::AddSidecar { sidecar, none } => {
                self.add(if *none {
                    "/spec/initContainers"
                } else {
                    "/spec/initContainers/0"
                });
                self.value("");
                self.listed(*none, |patch| sidecar.write(&mut patch.text));
            }
            Edit::MoveSidecar { from } => {
                self.begin("move");
                self.text
                    .push_str("/spec/initContainers/0\",\"from\":\"/spec/initContainers/");
                self.number(*from);
                self.end_of_path();
            }
            Edit::RemoveSidecar { index } => {
                self.remove("/spec/initContainers/");
                self.number(*index);
                self.end_of_path();
            }
            Edit::SetMetadata {
                map,
                entries,
                none: true,
            } => {
                self.add(map.path());
                self.value("");
                self.text.push('{');
                for (index, (key, value)) in entries.iter().enumerate() {
                    if index > 0 {
                        self.text.push(',');
                    }
                    push_string(&mut self.text, key);
                    self.text.push(':');
                    push_string(&mut self.text, value);
                }
                self.text.push_str("}}");
            }
            Edit::SetMetadata { map, entries, .. } => {
                for (key, value) in entries {
                    self.add(map.path());
                    self.text.push('/');
                    self.token(key);
                    self.value("");
                    push_string(&mut self.text, value);
                    self.end();
                }
            }
            Edit::RemoveMetadata { map, key } => {
                self.remove(map.path());
                self.text.push('/');
                self.token(key);
                self.end_of_path();
            }
        }
    }

    fn begin(&mut self, operation: &str) {
        self.text.push(if self.text.is_empty() { '[' } else { ',' });
        self.text.push_str("{\"op\":\"");
        self.text.push_str(operation);
        self.text.push_str("\",\"path\":\"");
    }

    /// Begins an addition; the path may go on.
    fn add(&mut self, path: &str) {
        self.begin("add");
        self.text.push_str(path);
    }

    /// Begins a replacement; the path may go on.
    fn replace(&mut self, path: &str) {
        self.begin("replace");
        self.text.push_str(path);
    }

    /// Begins a removal; the path may go on.
    fn remove(&mut self, path: &str) {
        self.begin("remove");
        self.text.push_str(path);
    }

    fn add_to(&mut self, container: Place, path: &str) {
        self.add("/spec/");
        self.place(container);
        self.value(path);
    }

    fn replace_in(&mut self, container: Place, path: &str, index: usize) {
        self.replace("/spec/");
        self.place(container);
        self.text.push_str(path);
        self.number(index);
        self.value("");
    }

    fn remove_in(&mut self, container: Place, path: &str, index: usize) {
        self.remove("/spec/");
        self.place(container);
        self.text.push_str(path);
        self.number(index);
        self.end_of_path();
    }

    fn place(&mut self, Place { list, index }: Place) {
        self.text.push_str(list);
        self.text.push('/');
        self.number(index);
    }

    fn number(&mut self, number: usize) {
        // The index of a container, mostly.
        if let Some(digit) = u32::try_from(number)
            .ok()
            .and_then(|number| char::from_digit(number, 10))
        {
            return self.text.push(digit);
        }
        // Writing into a String can't fail.
        let _ = write!(self.text, "{number}");
    }

    /// One reference token of a path (RFC 6901).
    fn token(&mut self, token: &str) {
        for character in token.chars() {
            match character {
                '~' => self.text.push_str("~0"),
                '/' => self.text.push_str("~1"),
                other => self.text.push(other),
            }
        }
    }

    /// The path's last part, after which the value comes.
    fn value(&mut self, path: &str) {
        self.text.push_str(path);
        self.text.push_str("\",\"value\":");
    }

    fn end(&mut self) {
        self.text.push('}');
    }

    fn end_of_path(&mut self) {
        self.text.push_str("\"}");
    }

    /// One value, in a list of its own where there is `none` yet.
    fn listed(&mut self, none: bool, write: impl FnOnce(&mut Self)) {
        if none {
            self.text.push('[');
        }
        write(self);
        if none {
            self.text.push(']');
        }
        self.end();
    }

    fn list<T>(&mut self, items: &[T], mut write: impl FnMut(&mut Self, &T)) {
        self.text.push('[');
        for (index, item) in items.iter().enumerate() {
            if index > 0 {
                self.text.push(',');
            }
            write(self, item);
        }
        self.text.push(']');
    }

    fn volume(&mut self, NewVolume { name, content }: &NewVolume<'_>) {
        self.text.push_str("{\"name\":\"");
        self.text.push_str(name);
        match content {
            Content::Tokens(tokens) => {
                self.text.push_str("\",\"projected\":{\"sources\":");
                self.sources(tokens);
            }
            // A few tokens of a few kilobytes each, each twice while it is replaced.
            Content::Memory => self
                .text
                .push_str("\",\"emptyDir\":{\"medium\":\"Memory\",\"sizeLimit\":\"1Mi\""),
            Content::Socket(WorkloadApi::Csi { driver }) => {
                self.text.push_str("\",\"csi\":{\"driver\":");
                push_string(&mut self.text, driver);
                self.text.push_str(",\"readOnly\":true");
            }
            // Not made where it is missing: on a new node the agent makes it, and until then the pod waits.
            Content::Socket(WorkloadApi::HostPath { path }) => {
                self.text.push_str("\",\"hostPath\":{\"path\":");
                push_string(&mut self.text, path);
                self.text.push_str(",\"type\":\"Directory\"");
            }
        }
        self.text.push_str("}}");
    }

    fn sources(&mut self, tokens: &[TokenFile<'_>]) {
        self.list(tokens, |patch, token| {
            patch.text.push_str("{\"serviceAccountToken\":{\"audience\":");
            push_string(&mut patch.text, token.audience.as_str());
            patch.text.push_str(",\"expirationSeconds\":");
            patch.number(token.expiration.seconds() as usize);
            patch.text.push_str(",\"path\":");
            push_string(&mut patch.text, &token.file);
            patch.text.push_str("}}");
        });
    }

    fn variable(&mut self, variable: &Variable<'_>) {
        self.text.push_str("{\"name\":\"");
        self.text.push_str(variable.name);
        match &variable.value {
            Value::Text(text) => {
                self.text.push_str("\",\"value\":");
                push_string(&mut self.text, text);
                self.text.push('}');
            }
            Value::PodName => self
                .text
                .push_str("\",\"valueFrom\":{\"fieldRef\":{\"fieldPath\":\"metadata.name\"}}}"),
        }
    }

    fn mount(&mut self, mount: Mount) {
        self.text.push_str("{\"name\":\"");
        self.text.push_str(mount.volume);
        self.text.push_str("\",\"mountPath\":\"");
        self.text.push_str(mount.path);
        self.text.push_str("\",\"readOnly\":true}");
    }
}
