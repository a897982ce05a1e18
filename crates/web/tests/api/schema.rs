//! JSON Schema (2020-12) as far as the description uses it. A keyword that is not known here is an error, so that none is passed over.

use serde_json::{Map, Value};

/// What is wrong with `value` by the schema at `pointer` of `root`, a line each.
pub(crate) fn errors(root: &Value, pointer: &str, value: &Value) -> Vec<String> {
    let mut errors = Vec::new();
    let schema = root.pointer(pointer).unwrap_or_else(|| panic!("there is no schema {pointer}"));
    Check { root, errors: &mut errors }.check(schema, value, "");
    errors
}

struct Check<'a> {
    root: &'a Value,
    errors: &'a mut Vec<String>,
}

impl Check<'_> {
    fn add(&mut self, at: &str, what: impl std::fmt::Display) {
        self.errors.push(format!("{at}: {what}"));
    }

    fn fits(&self, schema: &Value, value: &Value) -> bool {
        let mut errors = Vec::new();
        Check { root: self.root, errors: &mut errors }.check(schema, value, "");
        errors.is_empty()
    }

    fn check(&mut self, schema: &Value, value: &Value, at: &str) {
        let keywords = match schema {
            Value::Bool(true) => return,
            Value::Object(keywords) => keywords,
            _ => return self.add(at, "nothing may be here"),
        };
        for (keyword, argument) in keywords {
            self.keyword(keywords, keyword, argument, value, at);
        }
    }

    fn keyword(&mut self, keywords: &Map<String, Value>, keyword: &str, argument: &Value, value: &Value, at: &str) {
        let branches = || argument.as_array().unwrap().iter();
        match keyword {
            "title" | "description" | "default" | "$schema" => {}
            // Of numbers it is checked by minimum and maximum; addresses are made by the standard library.
            "format" => {}
            "$ref" => {
                let target = argument.as_str().unwrap().strip_prefix('#').unwrap();
                let schema = self.root.pointer(target).unwrap_or_else(|| panic!("{target} is nowhere"));
                self.check(schema, value, at);
            }
            "type" => {
                let is = |name: &Value| is_type(name.as_str().unwrap(), value);
                if !argument.as_array().map_or_else(|| is(argument), |names| names.iter().any(is)) {
                    self.add(at, format!("{value} is no {argument}"));
                }
            }
            "const" if value != argument => self.add(at, format!("{value} is not {argument}")),
            "enum" if !branches().any(|known| known == value) => self.add(at, format!("{value} is none of {argument}")),
            "oneOf" if branches().filter(|schema| self.fits(schema, value)).count() != 1 => {
                self.add(at, format!("{value} fits not exactly one of {argument}"));
            }
            "anyOf" if !branches().any(|schema| self.fits(schema, value)) => {
                self.add(at, format!("{value} fits none of {argument}"));
            }
            "allOf" => branches().for_each(|schema| self.check(schema, value, at)),
            "const" | "enum" | "oneOf" | "anyOf" => {}
            "required" => {
                for name in branches().map(|name| name.as_str().unwrap()) {
                    if value.as_object().is_some_and(|fields| !fields.contains_key(name)) {
                        self.add(at, format!("{name} is missing"));
                    }
                }
            }
            "properties" => {
                for (name, field) in value.as_object().into_iter().flatten() {
                    if let Some(schema) = argument.get(name) {
                        self.check(schema, field, &format!("{at}/{name}"));
                    }
                }
            }
            "additionalProperties" => {
                for (name, field) in value.as_object().into_iter().flatten() {
                    if keywords.get("properties").and_then(|known| known.get(name)).is_none() {
                        self.check(argument, field, &format!("{at}/{name}"));
                    }
                }
            }
            "prefixItems" => {
                for (index, (item, schema)) in value.as_array().into_iter().flatten().zip(branches()).enumerate() {
                    self.check(schema, item, &format!("{at}/{index}"));
                }
            }
            "items" => {
                let first = keywords.get("prefixItems").and_then(Value::as_array).map_or(0, Vec::len);
                for (index, item) in value.as_array().into_iter().flatten().enumerate().skip(first) {
                    self.check(argument, item, &format!("{at}/{index}"));
                }
            }
            "minItems" | "maxItems" => {
                let (length, bound) = (value.as_array().map(Vec::len), argument.as_u64().map(|bound| bound as usize));
                let fits = |length| if keyword == "minItems" { Some(length) >= bound } else { Some(length) <= bound };
                if !length.is_none_or(fits) {
                    self.add(at, format!("{length:?} items, and {keyword} is {argument}"));
                }
            }
            "minimum" | "maximum" => {
                let (number, bound) = (value.as_f64(), argument.as_f64().unwrap());
                let fits = |number: f64| if keyword == "minimum" { number >= bound } else { number <= bound };
                if !number.is_none_or(fits) {
                    self.add(at, format!("{value}, and {keyword} is {argument}"));
                }
            }
            "pattern" => {
                assert!(
                    argument.as_str().unwrap().starts_with("^[a-z0-9]("),
                    "the only pattern is that of nodes' names"
                );
                let name = value.as_str().unwrap_or_default();
                if name.parse::<vipa_model::NodeName>().is_err() {
                    self.add(at, format!("{value} is no node's name"));
                }
            }
            other => self.add(at, format!("the keyword {other:?} is not known to this test")),
        }
    }
}

fn is_type(name: &str, value: &Value) -> bool {
    match name {
        "null" => value.is_null(),
        "boolean" => value.is_boolean(),
        "integer" => value.is_i64() || value.is_u64(),
        "number" => value.is_number(),
        "string" => value.is_string(),
        "array" => value.is_array(),
        "object" => value.is_object(),
        other => panic!("there is no type {other}"),
    }
}
