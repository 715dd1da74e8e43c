//! The settings that the backend reads from its environment variables: which environment it is in, and its signing
//! secret.

use std::collections::BTreeMap;

use super::token::{SECRET_CHARACTERS_MIN, SigningKey};
use relapse::environment::Environment;

/// Environment variables of the service's process.
pub type Variables = BTreeMap<String, String>;

/// The backend's knowledge of its deployment.
#[derive(Debug, Clone)]
pub struct BackendSettings {
    pub(super) environment: Environment,
    /// The environment by `ENVIRONMENT` alone; the repaired service never asks it.
    pub(super) environment_by_name_only: Environment,
    /// Where the signing secret is. Without one the service is not ready; it never makes one up.
    pub(super) secret: SecretSource,
    /// The secret that the auth service signs with.
    pub(super) issuer: Secret,
    /// Whether there is a key for the language model.
    pub(super) has_model: bool,
    /// `DEMO_MODE`, if it is set.
    pub(super) demo: Option<bool>,
    /// The key that opens the way in for end-to-end tests.
    pub(super) e2e_key: Option<String>,
}

/// Where the signing secret is.
#[derive(Debug, Clone)]
pub(super) enum SecretSource {
    /// In a variable.
    Variable(Secret),
    /// With the secret manager, which is asked when the service starts.
    Manager(String),
    /// Nowhere, and why; in words that name variables and no values.
    Missing(String),
}

/// The signing secret.
#[derive(Debug, Clone)]
pub(super) struct Secret {
    pub(super) text: String,
    pub(super) key: SigningKey,
}

impl Secret {
    pub(super) fn new(text: &str) -> Secret {
        Secret { key: SigningKey::new(text), text: text.to_owned() }
    }
}

impl BackendSettings {
    /// Reads the variables. A broken configuration is kept as such: the service says that it is not ready.
    /// `issuer_secret` is what the auth service signs with, and what the secret manager holds.
    pub fn read(variables: &Variables, issuer_secret: &str) -> BackendSettings {
        let environment = resolve_environment(variables);
        let named = Variables::from_iter(variables.get_key_value("ENVIRONMENT").map(|(k, v)| (k.clone(), v.clone())));
        let is_managed = environment == Environment::Staging && variables.contains_key("JWT_SECRET_NAME");
        let secret = match resolve_secret(environment, variables) {
            Ok(text) => SecretSource::Variable(Secret::new(&text)),
            Err(_) if is_managed => SecretSource::Manager(issuer_secret.to_owned()),
            Err(why) => SecretSource::Missing(why),
        };
        BackendSettings {
            environment,
            environment_by_name_only: resolve_environment(&named),
            secret,
            issuer: Secret::new(issuer_secret),
            has_model: variables.contains_key("LLM_API_KEY"),
            demo: variables.get("DEMO_MODE").map(|value| is_on(value)),
            e2e_key: variables.get("E2E_OAUTH_SIMULATION_KEY").cloned(),
        }
    }
}

fn is_on(value: &str) -> bool {
    matches!(value.to_ascii_lowercase().as_str(), "true" | "1" | "yes" | "on")
}

/// The one rule for the environment; every part of the service asks here. In this order:
///
/// 1. `ENVIRONMENT`, when it names one;
/// 2. the project, `GCP_PROJECT_ID` or `GOOGLE_CLOUD_PROJECT`;
/// 3. the service, `K_SERVICE`;
/// 4. the service's own addresses, `BACKEND_URL` or `AUTH_SERVICE_URL`;
/// 5. `TESTING`, when set;
/// 6. staging when any platform marker of 2 or 3 is there but names nothing, so that a deployed service never takes
///    itself for an engineer's machine; otherwise development.
///
/// In 2 to 4 a name that holds both `staging` and `prod` is staging: `x-prod-staging` is a stage.
pub(super) fn resolve_environment(variables: &Variables) -> Environment {
    let explicit = match value(variables, "ENVIRONMENT").as_str() {
        "production" | "prod" => Some(Environment::Production),
        "staging" | "stage" => Some(Environment::Staging),
        "testing" | "test" => Some(Environment::Testing),
        "development" | "dev" | "local" => Some(Environment::Development),
        _ => None,
    };
    let platform = ["GCP_PROJECT_ID", "GOOGLE_CLOUD_PROJECT", "K_SERVICE"];
    let is_deployed = platform.iter().any(|name| !value(variables, name).is_empty());
    explicit
        .or_else(|| platform.iter().find_map(|name| named_in(variables, name)))
        .or_else(|| ["BACKEND_URL", "AUTH_SERVICE_URL"].iter().find_map(|name| named_in(variables, name)))
        .or_else(|| (!value(variables, "TESTING").is_empty()).then_some(Environment::Testing))
        .unwrap_or(if is_deployed { Environment::Staging } else { Environment::Development })
}

/// The value of a variable, in lower case; empty if it is not set.
fn value(variables: &Variables, name: &str) -> String {
    variables.get(name).map(|value| value.trim().to_ascii_lowercase()).unwrap_or_default()
}

/// The environment whose name is a part of a variable's value.
fn named_in(variables: &Variables, name: &str) -> Option<Environment> {
    let value = value(variables, name);
    if value.contains("stag") {
        Some(Environment::Staging)
    } else if value.contains("prod") {
        Some(Environment::Production)
    } else {
        None
    }
}

/// `JWT_SECRET_{ENVIRONMENT}`, then `JWT_SECRET_KEY`, then in staging `JWT_SECRET`. The first that is set decides.
fn resolve_secret(environment: Environment, variables: &Variables) -> Result<String, String> {
    let own = format!("JWT_SECRET_{}", environment.name().to_ascii_uppercase());
    let mut names = vec![own.as_str(), "JWT_SECRET_KEY"];
    if environment == Environment::Staging {
        names.push("JWT_SECRET");
    }
    let Some((name, secret)) = names.iter().find_map(|name| Some((name, variables.get(*name)?))) else {
        return Err(format!("JWT secret not configured for {environment} environment: set {own} or JWT_SECRET_KEY"));
    };
    if secret.chars().count() < SECRET_CHARACTERS_MIN {
        return Err(format!("{name} is shorter than {SECRET_CHARACTERS_MIN} characters"));
    }
    Ok(secret.clone())
}

#[cfg(test)]
mod tests {
    use rstest::rstest;

    use super::{Variables, resolve_environment, resolve_secret};
    use relapse::environment::Environment::{self, Development, Production, Staging, Testing};

    fn variables(pairs: &[(&str, &str)]) -> Variables {
        pairs.iter().map(|(name, value)| ((*name).to_owned(), (*value).to_owned())).collect()
    }

    #[rstest]
    #[case::nothing(&[], Development)]
    #[case::explicit(&[("ENVIRONMENT", "production")], Production)]
    #[case::explicit_short(&[("ENVIRONMENT", " Prod ")], Production)]
    #[case::explicit_outranks_the_platform(&[("ENVIRONMENT", "development"), ("K_SERVICE", "backend-staging")], Development)]
    #[case::empty_explicit_is_unset(&[("ENVIRONMENT", ""), ("K_SERVICE", "backend-staging")], Staging)]
    #[case::project(&[("GCP_PROJECT_ID", "acme-production")], Production)]
    #[case::other_project_name(&[("GOOGLE_CLOUD_PROJECT", "acme-staging")], Staging)]
    #[case::project_outranks_service(&[("GCP_PROJECT_ID", "acme-staging"), ("K_SERVICE", "backend-prod")], Staging)]
    #[case::service(&[("K_SERVICE", "backend-staging")], Staging)]
    #[case::both_words(&[("K_SERVICE", "x-prod-staging")], Staging)]
    #[case::address(&[("AUTH_SERVICE_URL", "https://auth.staging.example")], Staging)]
    #[case::testing(&[("TESTING", "1")], Testing)]
    #[case::deployed_without_a_name(&[("K_SERVICE", "backend")], Staging)]
    fn one_rule_resolves_the_environment(#[case] pairs: &[(&str, &str)], #[case] expected: Environment) {
        assert_eq!(resolve_environment(&variables(pairs)), expected);
    }

    #[rstest]
    #[case::own_name("JWT_SECRET_STAGING", Staging, true)]
    #[case::common_name("JWT_SECRET_KEY", Production, true)]
    #[case::staging_only("JWT_SECRET", Staging, true)]
    #[case::not_in_production("JWT_SECRET", Production, false)]
    #[case::of_another_environment("JWT_SECRET_PRODUCTION", Staging, false)]
    fn a_secret_comes_from_its_own_variables(
        #[case] name: &str,
        #[case] environment: Environment,
        #[case] found: bool,
    ) {
        let secret = "0123456789abcdef0123456789abcdef";
        assert_eq!(resolve_secret(environment, &variables(&[(name, secret)])).is_ok(), found);
        assert!(resolve_secret(environment, &variables(&[(name, &secret[1..])])).is_err(), "31 characters");
    }
}
