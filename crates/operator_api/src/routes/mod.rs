//! What can be asked. Each route is described where it is written; the
//! description of the whole interface is made of these.

mod access;
mod commands;
mod console;
mod events;
mod files;
mod follow;
mod how;
mod look;
mod operations;
mod plans;
mod session;
mod ways_in;

use std::collections::BTreeMap;
use std::sync::Arc;

use axum::Router;
use axum::http::{StatusCode, header};
use axum::middleware::{from_fn, from_fn_with_state};
use axum::response::IntoResponse;
use axum::routing::get;
use utoipa::OpenApi;
use utoipa::openapi::security::{Http, HttpAuthScheme, SecurityScheme};
use utoipa::openapi::{ContentBuilder, Ref, RefOr, ResponseBuilder};
use utoipa_axum::router::OpenApiRouter;
use utoipa_axum::routes;

use crate::access::{administrators, authenticate, operators};
use crate::problem::Problem;
use crate::server::App;
use crate::{console as page, guard};

#[derive(OpenApi)]
#[openapi(
    info(
        title = "Berth",
        description = "The operator's interface of a Berth host. Sizes and places are bytes. \
                       What takes its time is an operation: its answer names a resource that \
                       tells how far it is; with `Accept: text/event-stream` it is itself \
                       every step of it, each an event `operation`. Refusals are problem details (RFC 9457).",
        license(name = "Apache-2.0 OR MIT"),
    ),
    tags(
        (name = "look", description = "See what there is. Role: viewer."),
        (name = "plan", description = "See what something would do. Role: viewer."),
        (name = "operate", description = "Change what is there. Role: operator."),
        (name = "administer", description = "Make and delete, end the host. Role: administrator."),
        (name = "identity", description = "Who machines are. Everybody may ask."),
        (name = "operations", description = "Commands that take their time."),
    ),
    components(schemas(crate::events::Event, console::Shown, crate::model::RoleName, Problem)),
)]
struct Description;

/// Everybody who is somebody.
fn viewers() -> OpenApiRouter<Arc<App>> {
    OpenApiRouter::new()
        .routes(routes!(look::status))
        .routes(routes!(look::partitions))
        .routes(routes!(look::partition))
        .routes(routes!(look::pools))
        .routes(routes!(look::pool))
        .routes(routes!(look::audit))
        .routes(routes!(look::metrics))
        .routes(routes!(events::events))
        .routes(routes!(operations::operations))
        .routes(routes!(operations::operation))
        .routes(routes!(plans::relocate))
        .routes(routes!(plans::exchange))
        .routes(routes!(plans::resize))
        .routes(routes!(plans::compact))
        .routes(routes!(files::spaces))
        .routes(routes!(files::space))
        .routes(routes!(files::logins))
        .routes(routes!(session::whoami))
}

fn for_operators() -> OpenApiRouter<Arc<App>> {
    OpenApiRouter::new()
        .routes(routes!(commands::start))
        .routes(routes!(commands::stop))
        .routes(routes!(commands::restart))
        .routes(routes!(commands::relocate))
        .routes(routes!(commands::expand))
        .routes(routes!(commands::shrink))
        .routes(routes!(commands::exchange))
        .routes(routes!(commands::compact))
        .routes(routes!(commands::pool_resume))
        .routes(routes!(commands::pool_resize))
        .routes(routes!(operations::cancel))
        .routes(routes!(console::console))
        .routes(routes!(console::keys))
        .routes(routes!(commands::wait_up))
        .routes(routes!(ways_in::exec))
        .routes(routes!(ways_in::attach))
        .routes(routes!(ways_in::last_words))
        .layer(from_fn(operators))
}

fn for_administrators() -> OpenApiRouter<Arc<App>> {
    OpenApiRouter::new()
        .routes(routes!(commands::create))
        .routes(routes!(commands::delete))
        .routes(routes!(commands::down))
        .routes(routes!(files::add))
        .routes(routes!(files::grant))
        .routes(routes!(files::revoke))
        .routes(routes!(files::quota))
        .routes(routes!(files::give_login))
        .routes(routes!(files::take_login))
        .routes(routes!(access::list, access::make))
        .routes(routes!(access::revoke))
        .routes(routes!(access::link))
        .layer(from_fn(administrators))
}

fn public() -> OpenApiRouter<Arc<App>> {
    OpenApiRouter::new().routes(routes!(session::follow)).routes(routes!(look::jwks))
}

fn described() -> (OpenApiRouter<Arc<App>>, utoipa::openapi::OpenApi) {
    let all = viewers().merge(for_operators()).merge(for_administrators());
    let mut description = Description::openapi();
    description.info.version = env!("CARGO_PKG_VERSION").to_owned();
    let described = OpenApiRouter::<Arc<App>>::with_openapi(description)
        .merge(viewers())
        .merge(for_operators())
        .merge(for_administrators())
        .merge(public());
    let mut description = described.get_openapi().clone();
    describe_problems(&mut description);
    let components = description.components.get_or_insert_default();
    let bearer = SecurityScheme::Http(Http::new(HttpAuthScheme::Bearer));
    components.add_security_scheme("token", bearer);
    (all, description)
}

/// Every answer that is not what was asked for is a problem, whichever it is.
fn describe_problems(description: &mut utoipa::openapi::OpenApi) {
    let problem = || {
        let content = ContentBuilder::new().schema(Some(Ref::from_schema_name("Problem"))).build();
        let response = ResponseBuilder::new().description("What went wrong, and what to do");
        RefOr::T(response.content("application/problem+json", content).build())
    };
    for item in description.paths.paths.values_mut() {
        let all = [&mut item.get, &mut item.post, &mut item.delete];
        for operation in all.into_iter().flatten() {
            let responses = &mut operation.responses.responses;
            responses.retain(|status, _| !status.starts_with(['4', '5']));
            follow_too(responses);
            responses.insert("default".to_owned(), problem());
        }
    }
}

/// Whatever begins an operation tells of every step of it, if asked to.
fn follow_too(responses: &mut BTreeMap<String, RefOr<utoipa::openapi::Response>>) {
    if !responses.contains_key("202") {
        return;
    }
    if let Some(RefOr::T(ended)) = responses.get_mut("200") {
        let text = Some(utoipa::openapi::schema::Type::String);
        let text = text.map(utoipa::openapi::Object::with_type);
        let content = ContentBuilder::new().schema(text).build();
        ended.content.insert("text/event-stream".to_owned(), content);
    }
}

/// The description of the interface: OpenAPI 3.1, as JSON.
#[must_use]
pub fn openapi() -> String {
    described().1.to_pretty_json().unwrap_or_default()
}

/// Everything, as one service.
pub(crate) fn router(app: &Arc<App>) -> Router {
    let (known, description) = described();
    let description: axum::body::Bytes = description.to_json().unwrap_or_default().into();
    let describe = move || {
        let json = [(header::CONTENT_TYPE, "application/json")];
        std::future::ready((json, description.clone()))
    };
    let known = Router::from(known).route_layer(from_fn_with_state(Arc::clone(app), authenticate));
    known
        .merge(Router::from(public()))
        .route("/v1/openapi.json", get(describe))
        .merge(page::router())
        .fallback(|| async {
            Problem::not_found("there is no such thing; /v1/openapi.json lists all there is")
        })
        .method_not_allowed_fallback(|| async {
            let what = "this cannot be done to it; /v1/openapi.json says what can";
            Problem::new(StatusCode::METHOD_NOT_ALLOWED, "not-allowed", what).into_response()
        })
        .layer(from_fn_with_state(Arc::clone(app), guard::guard))
        .with_state(Arc::clone(app))
}
