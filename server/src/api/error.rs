//! Errors as clients of OpenAI's interface expect them.

use serde_json::{Value, json};

use crate::engine::Failure;

/// What HTTP says of it.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub(crate) enum Status {
    BadRequest,
    Unauthorized,
    Forbidden,
    NotFound,
    WrongMethod,
    TooLarge,
    Internal,
    Unavailable,
}

impl Status {
    /// Its number.
    pub(crate) fn code(self) -> u16 {
        match self {
            Status::BadRequest => 400,
            Status::Unauthorized => 401,
            Status::Forbidden => 403,
            Status::NotFound => 404,
            Status::WrongMethod => 405,
            Status::TooLarge => 413,
            Status::Internal => 500,
            Status::Unavailable => 503,
        }
    }

    fn kind(self) -> &'static str {
        match self {
            Status::Unauthorized => "authentication_error",
            Status::Forbidden => "permission_error",
            Status::Internal | Status::Unavailable => "server_error",
            _ => "invalid_request_error",
        }
    }
}

/// Why a request isn't served.
#[derive(Clone, Debug)]
pub(crate) struct ApiError {
    pub(crate) status: Status,
    message: String,
    /// The field that is at fault.
    param: Option<&'static str>,
    code: Option<&'static str>,
}

impl ApiError {
    pub(crate) fn new(status: Status, message: impl Into<String>) -> Self {
        ApiError { status, message: message.into(), param: None, code: None }
    }

    /// A field of the request is wrong.
    pub(crate) fn field(param: &'static str, message: impl Into<String>) -> Self {
        ApiError { param: Some(param), ..Self::new(Status::BadRequest, message) }
    }

    pub(crate) fn message(&self) -> &str {
        &self.message
    }

    /// The body.
    pub(crate) fn json(&self) -> Value {
        let ApiError { status, message, param, code } = self;
        json!({"error": {"message": message, "type": status.kind(), "param": param, "code": code}})
    }
}

impl From<Failure> for ApiError {
    fn from(failure: Failure) -> Self {
        let (status, code) = match &failure {
            Failure::Model(_) => (Status::Internal, None),
            Failure::Form(message) => return ApiError::field("response_format", message),
            Failure::NoPrompt | Failure::ImageTooLong { .. } => (Status::BadRequest, None),
            Failure::TooMany { .. } => (Status::BadRequest, None),
            Failure::TooLong { .. } => (Status::BadRequest, Some("context_length_exceeded")),
            Failure::Busy { .. } => (Status::Unavailable, Some("busy")),
            Failure::Stopping => (Status::Unavailable, Some("stopping")),
        };
        ApiError { code, ..ApiError::new(status, failure.to_string()) }
    }
}
