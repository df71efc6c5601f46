//! An implementation of kustomize, as far as the manifests use it: resources, components, generated `ConfigMap`s, and
//! patches of single fields.

use std::fs;
use std::path::Path;
use std::process::Command;

use serde_json::{Value, json};

/// The supported keys of a kustomization; any other is a mistake, or yet to be implemented below.
const KEYS: &[&str] = &[
    "apiVersion",
    "kind",
    "namespace",
    "resources",
    "components",
    "configMapGenerator",
    "patches",
    "images",
];

/// Returns all objects of a kustomization.
pub(crate) fn build(folder: &Path) -> Vec<Value> {
    let mut objects = Vec::new();
    accumulate(folder, &mut objects);
    objects
}

fn accumulate(folder: &Path, objects: &mut Vec<Value>) {
    let kustomization = read(&folder.join("kustomization.yaml"));
    for key in kustomization.as_object().unwrap().keys() {
        assert!(KEYS.contains(&key.as_str()), "{}: {key}", folder.display());
    }
    for resource in list(&kustomization, "resources") {
        let path = folder.join(resource.as_str().unwrap());
        if path.is_dir() {
            accumulate(&path, objects);
        } else {
            objects.push(read(&path));
        }
    }
    for generator in list(&kustomization, "configMapGenerator") {
        objects.push(config_map(folder, &generator));
    }
    for component in list(&kustomization, "components") {
        accumulate(&folder.join(component.as_str().unwrap()), objects);
    }
    for patch in list(&kustomization, "patches") {
        apply(&patch, objects);
    }
    for image in list(&kustomization, "images") {
        rename(&image, objects);
    }
    if let Some(namespace) = kustomization.get("namespace") {
        for object in objects {
            if object["kind"] != "Namespace" {
                object["metadata"]["namespace"] = namespace.clone();
            }
        }
    }
}

/// Reads the only document in a file.
pub(crate) fn read(path: &Path) -> Value {
    let text =
        fs::read_to_string(path).unwrap_or_else(|error| panic!("{}: {error}", path.display()));
    parse(&text)
}

pub(crate) fn parse(text: &str) -> Value {
    serde_saphyr::from_str(text).unwrap_or_else(|error| panic!("{error}: {text}"))
}

/// Returns the entries of a list; empty if the key is missing.
pub(crate) fn list(value: &Value, key: &str) -> Vec<Value> {
    value[key].as_array().cloned().unwrap_or_default()
}

fn config_map(folder: &Path, generator: &Value) -> Value {
    let mut data = json!({});
    for file in list(generator, "files") {
        let name = file.as_str().unwrap();
        data[name] = fs::read_to_string(folder.join(name)).unwrap().into();
    }
    json!({
        "apiVersion": "v1",
        "kind": "ConfigMap",
        "metadata": { "name": generator["name"] },
        "data": data,
    })
}

/// Applies a patch to its only target.
fn apply(patch: &Value, objects: &mut [Value]) {
    let target = &patch["target"];
    let mut targets = objects.iter_mut().filter(|object| {
        object["kind"] == target["kind"] && object["metadata"]["name"] == target["name"]
    });
    let object = targets
        .next()
        .unwrap_or_else(|| panic!("nothing is {target}"));
    let operations = parse(patch["patch"].as_str().unwrap());
    let operations: json_patch::Patch = serde_json::from_value(operations).unwrap();
    json_patch::patch(object, &operations).unwrap_or_else(|error| panic!("{target}: {error}"));
}

fn rename(image: &Value, objects: &mut [Value]) {
    for object in objects {
        let containers = object.pointer_mut("/spec/template/spec/containers");
        for container in containers
            .and_then(Value::as_array_mut)
            .into_iter()
            .flatten()
        {
            if container["image"] == image["name"] {
                let [name, tag] = ["newName", "newTag"].map(|key| image[key].as_str().unwrap());
                container["image"] = format!("{name}:{tag}").into();
            }
        }
    }
}

/// Returns the objects that kubectl's kustomize makes; `None` without a kubectl that supports components.
pub(crate) fn by_kubectl(folder: &Path) -> Option<Vec<Value>> {
    let output = Command::new("kubectl")
        .arg("kustomize")
        .arg(folder)
        .output();
    let output = output.ok()?;
    let errors = String::from_utf8_lossy(&output.stderr);
    if errors.contains("unknown field \"components\"") {
        return None;
    }
    assert!(output.status.success(), "{}: {errors}", folder.display());
    let text = String::from_utf8(output.stdout).unwrap();
    let mut objects: Vec<_> = text.split("\n---\n").map(parse).collect();
    remove_hash(&mut objects);
    Some(objects)
}

/// Removes the hash that kustomize appends to the name of the generated `ConfigMap`.
fn remove_hash(objects: &mut [Value]) {
    let is_generated = |object: &&Value| object["kind"] == "ConfigMap";
    let config = objects.iter().find(is_generated).unwrap();
    let hashed = config["metadata"]["name"].as_str().unwrap().to_owned();
    let (name, _) = hashed.rsplit_once('-').unwrap();
    for object in objects {
        let text = object
            .to_string()
            .replace(&format!("\"{hashed}\""), &format!("\"{name}\""));
        *object = serde_json::from_str(&text).unwrap();
    }
}
