//! The description of the API (OpenAPI 3.1), made of the operations and of the types that are answered.

use schemars::{SchemaGenerator, generate::SchemaSettings};
use serde_json::{Map, Value, json};
use vipa_protocol::admin::{Answer, Request, VERSION};

use crate::operations::{Input, OPERATIONS, Operation, Parameter, ParameterKind};

/// The description as JSON, indented, ending with a line's end; docs/api/openapi.json has the same.
#[must_use]
pub fn description() -> String {
    // `{:#}` of JSON cannot fail.
    format!("{:#}\n", document())
}

fn document() -> Value {
    let settings = SchemaSettings::draft2020_12().with(|settings| {
        settings.definitions_path = "/components/schemas".into();
        settings.meta_schema = None;
    });
    let mut generator = settings.into_generator();
    let answers = variants(&mut generator, "answer", |generator| generator.root_schema_for::<Answer>().to_value());
    let requests = variants(&mut generator, "ask", |generator| generator.root_schema_for::<Request>().to_value());
    let mut paths: Map<String, Value> = Map::new();
    for operation in OPERATIONS {
        let methods = paths.entry(operation.path).or_insert_with(|| json!({}));
        methods[operation.verb.name()] = describe(operation, &requests);
    }
    paths.insert(
        "/v1/openapi.json".into(),
        json!({ "get": {
            "operationId": "description",
            "summary": "This description",
            "responses": { "200": { "description": "OpenAPI 3.1", "content": { "application/json": {} } } },
        }}),
    );
    let mut schemas = generator.take_definitions(true);
    for operation in OPERATIONS {
        schemas.insert(answer_name(operation), answer_schema(operation, &answers));
    }
    schemas.insert("Problem".into(), problem());
    json!({
        "openapi": "3.1.0",
        "info": {
            "title": "Vipa router",
            "description": "The facts and orders of the admin socket over HTTP. A client with the role `read` may GET, one with the role \
                            `operate` may POST as well. New fields may be added within a version; readers skip those they do not know.",
            "version": format!("v1 (admin protocol {VERSION})"),
            "license": { "name": "Apache-2.0 OR MIT" },
        },
        "paths": paths,
        "components": {
            "schemas": schemas,
            "responses": { "Problem": {
                "description": "What went wrong, and what to do (RFC 9457). 400: the request; 403: the role; 409: an order that is refused; \
                                422: a question that has no answer; 429: too many requests; 503 and 504: later.",
                "content": { "application/problem+json": { "schema": { "$ref": "#/components/schemas/Problem" } } },
            }},
        },
    })
}

/// The variants of an enum that is told apart by `tag`, each with its name.
fn variants(
    generator: &mut SchemaGenerator,
    tag: &str,
    schema: impl FnOnce(&mut SchemaGenerator) -> Value,
) -> Vec<(String, Value)> {
    let schema = schema(generator);
    let variants = schema["oneOf"].as_array().cloned().unwrap_or_default();
    let named = |variant: Value| Some((variant["properties"][tag]["const"].as_str()?.to_owned(), variant));
    variants.into_iter().filter_map(named).collect()
}

fn variant<'v>(variants: &'v [(String, Value)], name: &str) -> &'v Value {
    variants.iter().find(|(known, _)| known == name).map_or(&Value::Null, |(_, variant)| variant)
}

fn describe(operation: &Operation, requests: &[(String, Value)]) -> Value {
    let Operation { id, summary, input, ask, .. } = *operation;
    let mut described = json!({
        "operationId": id,
        "summary": summary,
        "description": format!("Takes the role `{}`.", operation.role().name()),
        "responses": {
            "200": {
                "description": "The answer",
                "content": { "application/json": {
                    "schema": { "$ref": format!("#/components/schemas/{}", answer_name(operation)) },
                }},
            },
            "default": { "$ref": "#/components/responses/Problem" },
        },
    });
    match input {
        Input::Query([]) => {}
        Input::Query(parameters) => {
            described["parameters"] = parameters.iter().map(describe_parameter).collect();
        }
        Input::Body(names) => {
            let properties = &variant(requests, ask)["properties"];
            let properties: Map<String, Value> =
                names.iter().map(|name| ((*name).into(), properties[*name].clone())).collect();
            described["requestBody"] = json!({
                "required": true,
                "content": { "application/json": { "schema": {
                    "type": "object",
                    "properties": properties,
                    "additionalProperties": false,
                }}},
            });
        }
    }
    described
}

fn describe_parameter(parameter: &Parameter) -> Value {
    let Parameter { name, within: _, kind, about } = *parameter;
    let (required, schema) = match kind {
        ParameterKind::Number { default, least, most } => {
            (false, json!({ "type": "integer", "minimum": least, "maximum": most, "default": default }))
        }
        ParameterKind::Address => (true, json!({ "type": "string", "format": "ip" })),
        ParameterKind::OptionalAddress => (false, json!({ "type": "string", "format": "ip" })),
        ParameterKind::Word => (true, json!({ "type": "string" })),
        ParameterKind::OptionalWord => (false, json!({ "type": "string" })),
    };
    json!({ "name": name, "in": "query", "required": required, "description": about, "schema": schema })
}

/// As `StatusAnswer`.
fn answer_name(operation: &Operation) -> String {
    let mut name = operation.answer.to_owned();
    if let Some(first) = name.get_mut(..1) {
        first.make_ascii_uppercase();
    }
    name + "Answer"
}

fn answer_schema(operation: &Operation, answers: &[(String, Value)]) -> Value {
    let variant = variant(answers, operation.answer);
    let mut properties = json!({
        "version": { "type": "integer", "const": VERSION, "description": "Of the admin protocol" },
        "answer": { "const": operation.answer },
        "data": variant["properties"]["data"],
    });
    if let Input::Body(_) = operation.input {
        let about = "What was said meanwhile, a sentence each";
        properties["progress"] = json!({ "type": "array", "items": { "type": "string" }, "description": about });
    }
    json!({ "type": "object", "properties": properties, "required": ["version", "answer", "data"] })
}

fn problem() -> Value {
    json!({
        "type": "object",
        "properties": {
            "version": { "type": "integer", "const": VERSION },
            "status": { "type": "integer", "minimum": 400, "maximum": 599 },
            "title": { "type": "string" },
            "detail": { "type": "string", "description": "A sentence" },
        },
        "required": ["version", "status", "title", "detail"],
    })
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn the_description_in_the_tree_is_that_of_the_program() {
        let file = concat!(env!("CARGO_MANIFEST_DIR"), "/../../docs/api/openapi.json");
        if std::env::var_os("WRITE").is_some() {
            std::fs::write(file, description()).unwrap();
        }
        let kept = std::fs::read_to_string(file).unwrap_or_default();
        assert!(kept == description(), "docs/api/openapi.json is not current; run: make api-description");
    }

    #[test]
    fn nothing_in_the_description_is_missing_or_points_nowhere() {
        let document = document();
        let mut stack = vec![&document];
        while let Some(value) = stack.pop() {
            match value {
                Value::Object(fields) => {
                    if let Some(Value::String(pointer)) = fields.get("$ref") {
                        let path = pointer.strip_prefix('#').unwrap();
                        assert!(document.pointer(path).is_some_and(|there| !there.is_null()), "{pointer}");
                    }
                    stack.extend(fields.values());
                }
                Value::Array(items) => stack.extend(items),
                _ => {}
            }
        }
        for operation in OPERATIONS {
            let answer = &document["components"]["schemas"][answer_name(operation)];
            assert!(!answer["properties"]["data"].is_null(), "{}: {answer}", operation.id);
        }
    }
}
