//! The rules of <https://github.com/grafana/dashboard-linter>, under their names there.
//!
//! Not here: `target-promql-rule` and `template-label-promql-rule`, as far as they parse queries, which a real
//! Prometheus does in [`crate::live`]; `target-logql-rule` and `target-logql-auto-rule`, as there are no logs;
//! `template-required-variables-rule` and `target-required-matchers-rule`, which check the lists of a configuration,
//! and there is none.

use std::collections::BTreeSet;
use std::fs;

use serde_json::Value;

use crate::files::{dashboards, files, list, panels, path, text, yaml};
use crate::selector::{Selector, bare, selectors};

/// The units of the linter's list that are used.
const UNITS: [&str; 10] = [
    "short",
    "percentunit",
    "bytes",
    "Bps",
    "s",
    "cps",
    "pps",
    "bool_on_off",
    "bool_yes_no",
    "dateTimeFromNow",
];

/// Expects a rule to find nothing in any dashboard.
fn expect(rule: &str, find: impl Fn(&Value) -> Vec<String>) {
    let found: Vec<_> = dashboards()
        .iter()
        .flat_map(|dashboard| {
            let title = text(&dashboard["title"]).to_owned();
            let found = find(dashboard).into_iter();
            found
                .map(move |what| format!("{rule}: {title}: {what}"))
                .collect::<Vec<_>>()
        })
        .collect();
    assert!(found.is_empty(), "\n{}", found.join("\n"));
}

/// Returns the titles of the panels that are not fine.
fn wrong_panels(dashboard: &Value, is_fine: impl Fn(&Value) -> bool) -> Vec<String> {
    let wrong = panels(dashboard).filter(|panel| !is_fine(panel));
    wrong
        .map(|panel| text(&panel["title"]).to_owned())
        .collect()
}

/// Returns panel and query of the queries with a selector that is not fine.
fn wrong_selectors(dashboard: &Value, is_fine: impl Fn(&Selector) -> bool) -> Vec<String> {
    let targets = panels(dashboard).flat_map(|panel| {
        list(&panel["targets"])
            .iter()
            .map(move |target| (panel, target))
    });
    targets
        .filter(|(_, target)| !selectors(text(&target["expr"])).iter().all(&is_fine))
        .map(|(panel, target)| format!("{}: {}", text(&panel["title"]), text(&target["expr"])))
        .collect()
}

fn variable<'a>(dashboard: &'a Value, name: &str) -> &'a Value {
    let mut all = list(&dashboard["templating"]["list"]).iter();
    all.find(|variable| variable["name"] == name)
        .unwrap_or(&Value::Null)
}

/// Checks the variables `job` and `instance` as the linter does.
fn wrong_variable(dashboard: &Value, name: &str, label: &str) -> Vec<String> {
    let variable = variable(dashboard, name);
    let wanted = variable["datasource"]["uid"] == "${datasource}"
        && variable["type"] == "query"
        && variable["label"] == label
        && variable["multi"] == true
        && variable["allValue"] == ".+";
    if wanted {
        Vec::new()
    } else {
        vec![variable.to_string()]
    }
}

#[test]
fn template_datasource_rule() {
    expect("template-datasource-rule", |dashboard| {
        let all = list(&dashboard["templating"]["list"]).iter();
        let sources: Vec<_> = all
            .filter(|variable| variable["type"] == "datasource")
            .collect();
        match sources.as_slice() {
            [one]
                if one["name"] == "datasource"
                    && one["label"] == "Data source"
                    && one["query"] == "prometheus" =>
            {
                Vec::new()
            }
            _ => vec![format!("{sources:?}")],
        }
    });
}

#[test]
fn template_job_rule() {
    expect("template-job-rule", |dashboard| {
        wrong_variable(dashboard, "job", "Job")
    });
}

#[test]
fn template_instance_rule() {
    expect("template-instance-rule", |dashboard| {
        wrong_variable(dashboard, "instance", "Instance")
    });
}

#[test]
fn template_label_promql_rule() {
    expect("template-label-promql-rule", |dashboard| {
        let all = list(&dashboard["templating"]["list"]).iter();
        let queries = all.filter(|variable| variable["type"] == "query");
        let queries = queries.map(|variable| text(&variable["query"]["query"]));
        queries
            .filter(|query| !(query.starts_with("label_values(") && query.ends_with(')')))
            .map(str::to_owned)
            .collect()
    });
}

#[test]
fn template_on_time_change_reload_rule() {
    expect("template-on-time-change-reload-rule", |dashboard| {
        let all = list(&dashboard["templating"]["list"]).iter();
        let queries = all.filter(|variable| variable["type"] == "query");
        queries
            .filter(|variable| variable["refresh"] != 2)
            .map(Value::to_string)
            .collect()
    });
}

#[test]
fn uneditable_dashboard_rule() {
    expect("uneditable-dashboard", |dashboard| {
        if dashboard["editable"] == false {
            Vec::new()
        } else {
            vec!["editable".into()]
        }
    });
}

#[test]
fn panel_datasource_rule() {
    expect("panel-datasource-rule", |dashboard| {
        wrong_panels(dashboard, |panel| {
            panel["datasource"]["uid"] == "${datasource}"
        })
    });
}

#[test]
fn panel_title_description_rule() {
    expect("panel-title-description-rule", |dashboard| {
        wrong_panels(dashboard, |panel| {
            !text(&panel["title"]).is_empty() && !text(&panel["description"]).is_empty()
        })
    });
}

#[test]
fn panel_units_rule() {
    expect("panel-units-rule", |dashboard| {
        wrong_panels(dashboard, |panel| {
            let config = &panel["fieldConfig"];
            let overrides = list(&config["overrides"]).iter();
            let properties = overrides.flat_map(|one| list(&one["properties"]));
            let units = properties.filter(|property| property["id"] == "unit");
            let mut units = units.map(|property| text(&property["value"]));
            UNITS.contains(&text(&config["defaults"]["unit"]))
                && units.all(|unit| UNITS.contains(&unit))
        })
    });
}

#[test]
fn panel_no_targets_rule() {
    expect("panel-no-targets-rule", |dashboard| {
        wrong_panels(dashboard, |panel| !list(&panel["targets"]).is_empty())
    });
}

#[test]
fn target_rate_interval_rule() {
    expect("target-rate-interval-rule", |dashboard| {
        wrong_selectors(dashboard, |selector| {
            !matches!(selector.function, "rate" | "irate") || selector.range == "$__rate_interval"
        })
    });
}

/// Expects a matcher in every selector, except those of the panels that the linter is told to let pass.
fn expect_matcher(rule: &str, matcher: &str) {
    let lint = yaml(&path("dashboards/.lint"));
    let entries = list(&lint["exclusions"][rule]["entries"]);
    let excluded: BTreeSet<_> = entries.iter().map(|entry| text(&entry["panel"])).collect();
    let mut used = BTreeSet::new();
    for dashboard in dashboards() {
        let wrong = wrong_selectors(&dashboard, |selector| selector.matchers.contains(matcher));
        for what in wrong {
            let name = excluded.iter().find(|name| what.starts_with(**name));
            used.insert(*name.unwrap_or_else(|| panic!("{rule}: {what}")));
        }
    }
    assert_eq!(used, excluded, "what needs no exclusion any more");
}

#[test]
fn target_job_rule() {
    expect_matcher("target-job-rule", r#"job=~"$job""#);
}

#[test]
fn target_instance_rule() {
    expect_matcher("target-instance-rule", r#"instance=~"$instance""#);
}

#[test]
fn target_counter_agg_rule() {
    expect("target-counter-agg-rule", |dashboard| {
        wrong_selectors(dashboard, |selector| {
            !selector.metric.ends_with("_total")
                || matches!(selector.function, "rate" | "irate" | "increase")
                    && !selector.range.is_empty()
        })
    });
}

#[test]
fn every_query_has_a_legend_and_every_selector_braces() {
    expect("legends", |dashboard| {
        wrong_panels(dashboard, |panel| {
            list(&panel["targets"]).iter().all(|target| {
                !text(&target["legendFormat"]).is_empty() && bare(text(&target["expr"])).is_empty()
            })
        })
    });
}

#[test]
fn selectors_of_units_exclude_the_retired() {
    // Metrics of whether anything is counted, and of losses, have no retired group.
    let of_units = [
        "linger_closes_total",
        "linger_discarded",
        "linger_unread",
        "linger_close_blocked",
        "linger_resets",
    ];
    expect("retired", |dashboard| {
        wrong_selectors(dashboard, |selector| {
            !of_units
                .iter()
                .any(|metric| selector.metric.starts_with(metric))
                || selector.matchers.contains(r#"unit!="retired""#)
                || selector.matchers.contains(r#"unit="other""#)
        })
    });
}

#[test]
fn dashboards_are_told_apart_and_lead_to_each_other() {
    let all = dashboards();
    let ids: BTreeSet<_> = all
        .iter()
        .map(|dashboard| text(&dashboard["uid"]))
        .collect();
    assert_eq!(
        ids.iter().copied().collect::<Vec<_>>(),
        [
            "linger-fleet",
            "linger-host-overview",
            "linger-lingerd-itself",
            "linger-lost-after-close",
            "linger-unit-in-depth"
        ]
    );
    for dashboard in &all {
        let link = &dashboard["links"][0];
        assert_eq!(link["type"], "dashboards");
        assert_eq!(link["tags"], dashboard["tags"]);
        assert_eq!(
            (&link["keepTime"], &link["includeVars"]),
            (&true.into(), &true.into())
        );
        let written = dashboard.to_string();
        for target in written.split("/d/").skip(1) {
            let (uid, _) = target.split_once('/').unwrap();
            assert!(ids.contains(uid), "a link leads to {uid}");
        }
    }
}

#[test]
fn panels_have_numbers_and_places_of_their_own() {
    for dashboard in dashboards() {
        let all = list(&dashboard["panels"]);
        let ids: BTreeSet<_> = all
            .iter()
            .map(|panel| panel["id"].as_u64().unwrap())
            .collect();
        assert_eq!(ids.len(), all.len());
        let mut taken = BTreeSet::new();
        for panel in all {
            let [x, y, w, h] =
                ["x", "y", "w", "h"].map(|key| panel["gridPos"][key].as_u64().unwrap());
            assert!(x + w <= 24, "{}", panel["title"]);
            let cells = (x..x + w).flat_map(|x| (y..y + h).map(move |y| (x, y)));
            for cell in cells {
                assert!(taken.insert(cell), "{} overlaps", panel["title"]);
            }
        }
    }
}

/// `cargo xtask lab pictures` draws the pictures anew.
#[test]
fn every_panel_is_in_the_picture_of_its_dashboard() {
    for file in files("dashboards", "json") {
        let name = file.file_stem().unwrap().to_string_lossy();
        let picture = path(&format!("dashboards/pictures/{name}.svg"));
        let picture = fs::read_to_string(&picture)
            .unwrap_or_else(|error| panic!("{}: {error}", picture.display()));
        let dashboard = serde_json::from_str(&fs::read_to_string(&file).unwrap()).unwrap();
        for panel in panels(&dashboard) {
            let title = text(&panel["title"]);
            let label = format!("aria-label=\"{title}\"");
            assert!(picture.contains(&label), "{name}: no picture of {title}");
        }
        let shown = fs::read_to_string(path("dashboards/README.md")).unwrap();
        assert!(shown.contains(&format!("(pictures/{name}.svg)")), "{name}");
    }
}
