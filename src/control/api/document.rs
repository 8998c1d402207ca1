//! The OpenAPI document, made from the types that serve.
//!
//! Schemas come from `utoipa`'s derives; requests with several shapes are written out as one alternative each, from the same
//! [`Shape`]s that the reader checks. The list of operations is the list of routes ([`each_call`]) and the table of `GET`s
//! here.

use serde_json::{Map, Value, json};
use utoipa::ToSchema;

use super::batch;
use super::calls::{Call, Visitor, each_call, path};
use super::queries;
use super::queues;
use super::shape::{Shape, Shaped};
use super::types::{
    COMMANDS_MAX, Connections, ConnectionsQuery, DeadLetters, DeadQuery, Disconnect, ErrorAnswer, Notify, Pipes,
    PipesQuery, Presence, Publish, Push, Queues, Restore, Retried, Retry, Revoke, RevokeAll, RevokeTokens, StatsAnswer,
    TargetFields, Unsubscribe,
};
use super::values::{PipeName, QueueName};
use crate::protocol::codes::Code;

/// The schema of a target whose tenant stands beside it.
const OF_TENANT: &str = "TargetOfTenant";
const OF_TENANT_SHAPES: [Shape; 3] = [
    Shape { required: &["user"], optional: &[] },
    Shape { required: &["role"], optional: &[] },
    Shape { required: &["org"], optional: &[] },
];

/// What any call with a key may answer.
const CODES_OF_ALL: [Code; 6] =
    [Code::Invalid, Code::Unauthenticated, Code::Forbidden, Code::Overloaded, Code::Draining, Code::Internal];

/// The document of the server API, OpenAPI 3.1.
pub fn document() -> Value {
    let mut paper = Paper::default();
    each_call(&mut paper);
    paper.batch();
    paper.queries();
    paper.queues();
    paper.pushes();
    let in_shapes = [
        ("Publish", Publish::SHAPES),
        ("Revoke", Revoke::SHAPES),
        ("RevokeAll", RevokeAll::SHAPES),
        ("Restore", Restore::SHAPES),
        ("RevokeTokens", RevokeTokens::SHAPES),
        ("Disconnect", Disconnect::SHAPES),
        ("Unsubscribe", Unsubscribe::SHAPES),
        ("Retry", Retry::SHAPES),
        ("TargetFields", TargetFields::SHAPES),
    ];
    for (name, shapes) in in_shapes {
        if let Some(schema) = paper.schemas.get_mut(name) {
            *schema = shaped(schema, shapes);
        }
    }
    json!({
        "openapi": "3.1.0",
        "info": {
            "title": "Pipeward server API",
            "version": "1",
            "description": "What the application and the operators call. Every refusal is a JSON object with code and error, and has changed nothing.",
            "license": { "name": "Apache-2.0 OR MIT", "identifier": "Apache-2.0 OR MIT" }
        },
        "security": [{ "key": [] }],
        "paths": paper.paths,
        "components": {
            "securitySchemes": { "key": { "type": "http", "scheme": "bearer", "description": "A key of [[control.key]]" } },
            "schemas": paper.schemas
        }
    })
}

/// The document as far as it is written.
#[derive(Default)]
struct Paper {
    paths: Map<String, Value>,
    schemas: Map<String, Value>,
}

impl Visitor for Paper {
    fn visit<C: Call>(&mut self) {
        let mut codes = CODES_OF_ALL.to_vec();
        codes.extend_from_slice(C::CODES);
        codes.push(Code::PayloadTooLarge);
        let answer = self.reference::<C::Answer>();
        let mut responses = self.responses(&codes);
        responses.insert("408".to_owned(), refused("The body did not arrive in time"));
        responses.insert(C::STATUS.as_str().to_owned(), json_response("Done", &answer));
        let operation = json!({
            "operationId": C::RIGHT.name(),
            "summary": C::SUMMARY,
            "parameters": self.parameters::<C::Query>(),
            "requestBody": { "required": true, "content": { "application/json": { "schema": self.reference::<C>() } } },
            "responses": responses
        });
        self.paths.insert(path::<C>(), json!({ "post": operation }));
    }
}

/// Makes the alternatives of a batch's command.
#[derive(Default)]
struct Commands(Vec<Value>);

impl Visitor for Commands {
    fn visit<C: Call>(&mut self) {
        let base = to_value(&C::schema());
        for mut one in alternatives(&base, C::SHAPES) {
            one["title"] = json!(format!("{} command", C::RIGHT.name()));
            one["properties"]["method"] = json!({ "type": "string", "const": C::RIGHT.name() });
            if let Some(required) = one["required"].as_array_mut() {
                required.insert(0, json!("method"));
            }
            self.0.push(one);
        }
    }
}

impl Paper {
    fn batch(&mut self) {
        let mut commands = Commands::default();
        each_call(&mut commands);
        commands.0.push(json!({ "description": "Anything else fails alone, with INVALID" }));
        let error = self.reference::<ErrorAnswer>();
        self.schemas.insert(
            "Batch".to_owned(),
            json!({
                "type": "object",
                "required": ["commands"],
                "properties": {
                    "commands": { "type": "array", "maxItems": COMMANDS_MAX, "items": { "anyOf": commands.0 } }
                }
            }),
        );
        self.schemas.insert(
            "Results".to_owned(),
            json!({
                "type": "object",
                "required": ["results"],
                "properties": { "results": {
                    "description": "In the order of the commands: the answer of the call, or ok:false with code and error",
                    "type": "array",
                    "items": { "type": "object", "required": ["ok"], "properties": { "ok": { "type": "boolean" } } }
                } }
            }),
        );
        let mut codes = CODES_OF_ALL.to_vec();
        codes.push(Code::PayloadTooLarge);
        let mut responses = self.responses(&codes);
        responses.insert("408".to_owned(), json_response("The body did not arrive in time", &error));
        responses.insert("200".to_owned(), json_response("Every command was tried", &reference_to("Results")));
        let operation = json!({
            "operationId": "batch",
            "summary": "Several calls in order; one that fails does not stop the rest",
            "requestBody": { "required": true, "content": { "application/json": { "schema": reference_to("Batch") } } },
            "responses": responses
        });
        self.paths.insert(batch::PATH.to_owned(), json!({ "post": operation }));
    }

    /// A tenant stands inside `to` or beside it. Both are taken where they are the same, which no schema can say.
    fn pushes(&mut self) {
        let target = self.schemas.get("TargetFields").cloned().unwrap_or_default();
        self.schemas.insert(OF_TENANT.to_owned(), shaped(&target, &OF_TENANT_SHAPES));
        for (name, shapes) in [("Push", Push::SHAPES), ("Notify", Notify::SHAPES)] {
            let base = self.schemas.get(name).cloned().unwrap_or_default();
            let mut all = Vec::new();
            for shape in shapes {
                let required = [shape.required, &["tenant"]].concat();
                let mut beside = one_shape(&base, &required, &[]);
                beside["properties"]["to"] = reference_to(OF_TENANT);
                all.extend([one_shape(&base, shape.required, &[]), beside]);
            }
            self.schemas.insert(name.to_owned(), json!({ "oneOf": all, "description": base["description"] }));
        }
    }

    fn queries(&mut self) {
        let parameters = self.parameters::<ConnectionsQuery>();
        let answer = self.reference::<Connections>();
        self.query(queries::CONNECTIONS, "connections", "Open connections", parameters, &answer);
        let parameters = self.parameters::<PipesQuery>();
        let answer = self.reference::<Pipes>();
        self.query(queries::PIPES, "pipes", "Pipes with subscribers", parameters, &answer);
        let pipe = json!({
            "name": "pipe", "in": "path", "required": true, "schema": self.reference::<PipeName>(),
            "description": "Percent-encoded"
        });
        let answer = self.reference::<Presence>();
        self.query(queries::PRESENCE, "presence", "Who is subscribed to a pipe", vec![pipe], &answer);
        let answer = self.reference::<StatsAnswer>();
        self.query(queries::STATS, "stats", "The state of the server in numbers", Vec::new(), &answer);
        let any = json!({ "type": "object" });
        self.query(queries::OPENAPI, "openapi", "This document", Vec::new(), &any);
        let text = |name: &str, kind: &str| json!({ "description": name, "content": { kind: { "schema": { "type": "string" } } } });
        self.query(queries::METRICS, "metrics", "Metrics for Prometheus", Vec::new(), &any);
        self.paths[queries::METRICS]["get"]["responses"]["200"] = text("Metrics", queries::METRICS_TYPE);
        let plain = "text/plain; charset=utf-8";
        for (path, name) in [(queries::HEALTHZ, "healthz"), (queries::READYZ, "readyz")] {
            let mut responses = json!({ "200": text("Yes", plain) });
            if path == queries::READYZ {
                responses["503"] = refused("No");
            }
            let summary = if path == queries::READYZ { "Is every worker accepting?" } else { "Is the process alive?" };
            let operation = json!({ "operationId": name, "summary": summary, "security": [], "responses": responses });
            self.paths.insert(path.to_owned(), json!({ "get": operation }));
        }
    }

    fn queues(&mut self) {
        let answer = self.reference::<Queues>();
        self.query(queues::QUEUES, "queues", "Queues and what waits in them", Vec::new(), &answer);
        let queue = json!({
            "name": "queue", "in": "path", "required": true, "schema": self.reference::<QueueName>(),
            "description": "Percent-encoded"
        });
        let mut parameters = self.parameters::<DeadQuery>();
        parameters.insert(0, queue.clone());
        let answer = self.reference::<DeadLetters>();
        self.query(queues::DEAD, "queues_dead", "Messages of a queue that were given up", parameters, &answer);
        let mut codes = CODES_OF_ALL.to_vec();
        codes.extend([Code::NotFound, Code::Unavailable, Code::PayloadTooLarge]);
        let answer = self.reference::<Retried>();
        let mut responses = self.responses(&codes);
        responses.insert("408".to_owned(), refused("The body did not arrive in time"));
        responses.insert("200".to_owned(), json_response("They wait again", &answer));
        let body = self.reference::<Retry>();
        let operation = json!({
            "operationId": "queues_retry",
            "summary": "Have messages tried again that were given up",
            "parameters": [queue],
            "requestBody": { "required": true, "content": { "application/json": { "schema": body } } },
            "responses": responses
        });
        self.paths.insert(queues::RETRY.to_owned(), json!({ "post": operation }));
    }

    fn query(&mut self, path: &str, name: &str, summary: &str, parameters: Vec<Value>, answer: &Value) {
        let mut codes = CODES_OF_ALL.to_vec();
        if !parameters.iter().all(|parameter| parameter["in"] == "query") {
            // A client takes `.` and `..` out of a path, which makes another path of it.
            codes.push(Code::NotFound);
        }
        let mut responses = self.responses(&codes);
        responses.insert("200".to_owned(), json_response(summary, answer));
        let operation = json!({
            "operationId": name, "summary": summary, "parameters": parameters, "responses": responses
        });
        self.paths.insert(path.to_owned(), json!({ "get": operation }));
    }

    /// A reference to the schema of a type, which is put down with all that it refers to.
    fn reference<T: ToSchema>(&mut self) -> Value {
        let mut needed = Vec::new();
        T::schemas(&mut needed);
        for (name, schema) in needed {
            self.schemas.entry(name).or_insert_with(|| to_value(&schema));
        }
        self.schemas.entry(T::name()).or_insert_with(|| to_value(&T::schema()));
        reference_to(&T::name())
    }

    /// The fields of a type as parameters in the address. There none can be null; one that is left empty is not given.
    fn parameters<T: ToSchema>(&mut self) -> Vec<Value> {
        let mut needed = Vec::new();
        T::schemas(&mut needed);
        for (name, schema) in needed {
            self.schemas.entry(name).or_insert_with(|| to_value(&schema));
        }
        let schema = to_value(&T::schema());
        let fields = schema["properties"].as_object().into_iter().flatten();
        let empty = json!({ "type": "string", "maxLength": 0, "description": "Left empty it is as if not given" });
        let parameter = |(name, field): (&String, &Value)| {
            let schema = json!({ "anyOf": [never_null(field), empty] });
            json!({ "name": name, "in": "query", "required": false, "schema": schema })
        };
        fields.map(parameter).collect()
    }

    /// The refusals with these codes, by status.
    fn responses(&mut self, codes: &[Code]) -> Map<String, Value> {
        self.reference::<ErrorAnswer>();
        let mut responses = Map::new();
        for code in codes {
            let status = code.status().to_string();
            let names = codes.iter().filter(|other| other.status() == code.status()).map(|other| other.name());
            let names: Vec<&str> = names.collect();
            responses.insert(status, refused(&names.join(" or ")));
        }
        responses
    }
}

fn reference_to(name: &str) -> Value {
    json!({ "$ref": format!("#/components/schemas/{name}") })
}

fn json_response(description: &str, schema: &Value) -> Value {
    json!({ "description": description, "content": { "application/json": { "schema": schema } } })
}

fn refused(description: &str) -> Value {
    json_response(description, &reference_to("ErrorAnswer"))
}

fn to_value(schema: &impl serde::Serialize) -> Value {
    // Schemas are made of strings, numbers and maps with string keys: there is nothing that could fail.
    serde_json::to_value(schema).unwrap_or(Value::Null)
}

/// The schema of an object that comes in several shapes.
fn shaped(base: &Value, shapes: &[Shape]) -> Value {
    let mut all = alternatives(base, shapes);
    if all.len() == 1 {
        return all.remove(0);
    }
    json!({ "oneOf": all, "description": base["description"] })
}

/// One schema for each shape.
fn alternatives(base: &Value, shapes: &[Shape]) -> Vec<Value> {
    shapes.iter().map(|shape| one_shape(base, shape.required, shape.optional)).collect()
}

/// The schema with these fields. A field of another shape may be there as null, which is the same as not being there; any other
/// field may be there as well, and is ignored.
fn one_shape(base: &Value, required: &[&str], optional: &[&str]) -> Value {
    let mut properties = Map::new();
    for (name, field) in base["properties"].as_object().into_iter().flatten() {
        let schema = if required.contains(&name.as_str()) {
            never_null(field)
        } else if optional.contains(&name.as_str()) {
            field.clone()
        } else {
            json!({ "type": "null" })
        };
        properties.insert(name.clone(), schema);
    }
    json!({
        "type": "object",
        "description": base["description"],
        "required": required,
        "properties": properties
    })
}

/// The schema of a field that may be null, without null.
fn never_null(field: &Value) -> Value {
    let mut field = field.clone();
    if let Some(types) = field["type"].as_array().cloned() {
        let mut rest: Vec<Value> = types.into_iter().filter(|one| one != "null").collect();
        field["type"] = if rest.len() == 1 { rest.remove(0) } else { json!(rest) };
    }
    if let Some(choices) = field["oneOf"].as_array().cloned() {
        let rest: Vec<Value> = choices.into_iter().filter(|one| one["type"] != "null").collect();
        if let [only] = rest.as_slice() {
            return only.clone();
        }
    }
    if field["type"].is_null()
        && let Some(object) = field.as_object_mut()
    {
        object.remove("type");
    }
    field
}
