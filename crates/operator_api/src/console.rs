//! The web console: files that are compiled in.

use std::sync::Arc;

use axum::Router;
use axum::http::{HeaderName, header};
use axum::routing::get;

use crate::server::App;

/// Only this host's own files and answers; nothing that is inserted runs.
const POLICY: &str = "default-src 'none'; script-src 'self'; style-src 'self'; img-src 'self'; \
    connect-src 'self'; base-uri 'none'; form-action 'none'; frame-ancestors 'none'; \
    require-trusted-types-for 'script'; trusted-types 'none'";

/// Path, type, content.
type File = (&'static str, &'static str, &'static str);

const JS: &str = "text/javascript; charset=utf-8";
const FILES: &[File] = &[
    ("/", "text/html; charset=utf-8", include_str!("console/index.html")),
    ("/console/style.css", "text/css; charset=utf-8", include_str!("console/style.css")),
    ("/console/icon.svg", "image/svg+xml", include_str!("console/icon.svg")),
    ("/console/actions.js", JS, include_str!("console/actions.js")),
    ("/console/api.js", JS, include_str!("console/api.js")),
    ("/console/audit.js", JS, include_str!("console/audit.js")),
    ("/console/block.js", JS, include_str!("console/block.js")),
    ("/console/dialog.js", JS, include_str!("console/dialog.js")),
    ("/console/dom.js", JS, include_str!("console/dom.js")),
    ("/console/format.js", JS, include_str!("console/format.js")),
    ("/console/graphs.js", JS, include_str!("console/graphs.js")),
    ("/console/main.js", JS, include_str!("console/main.js")),
    ("/console/pools.js", JS, include_str!("console/pools.js")),
    ("/console/store.js", JS, include_str!("console/store.js")),
    ("/console/tables.js", JS, include_str!("console/tables.js")),
    ("/console/terminal.js", JS, include_str!("console/terminal.js")),
    ("/console/words.js", JS, include_str!("console/words.js")),
];

pub(crate) fn router() -> Router<Arc<App>> {
    FILES.iter().fold(Router::new(), |router, (path, kind, content)| {
        let headers: [(HeaderName, &str); 3] = [
            (header::CONTENT_TYPE, kind),
            (header::CONTENT_SECURITY_POLICY, POLICY),
            (header::CACHE_CONTROL, "no-cache"),
        ];
        router.route(path, get(move || std::future::ready((headers, *content))))
    })
}
