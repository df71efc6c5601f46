//! The look of the page, and its accessibility.

use anyhow::{Result, ensure};
use serde_json::{Value, json};

use crate::Test;
use crate::browser::Browser;
use crate::shown::{open, serve};

pub(crate) const TESTS: &[Test] = &[
    ("fits_a_phone", phone),
    ("is_light_or_dark_and_readable_in_both", schemes),
    ("has_a_structure_to_find_the_way_by", structure),
];

fn phone(browser: &mut Browser) -> Result<()> {
    let server = serve();
    for dark in [false, true] {
        open(browser, &server, 360, dark)?;
        let width = browser.evaluate("document.documentElement.scrollWidth")?;
        ensure!(width.as_u64() <= Some(360), "it is {width} wide");
        ensure!(
            browser.complaints().is_empty(),
            "{:?}",
            browser.complaints()
        );
    }
    Ok(())
}

/// Script that returns the least contrast of any text with its background (WCAG 2.2, 1.4.3), and that text.
const CONTRAST: &str = "
(() => {
  const channels = (color) => color.match(/[\\d.]+/g).map(Number);
  const linear = (value) => (value <= 0.04045 ? value / 12.92 : ((value + 0.055) / 1.055) ** 2.4);
  const luminance = ([red, green, blue]) =>
    0.2126 * linear(red / 255) + 0.7152 * linear(green / 255) + 0.0722 * linear(blue / 255);
  const behind = (node) => {
    for (let one = node; one; one = one.parentElement) {
      const color = channels(getComputedStyle(one).backgroundColor);
      if (color[3] !== 0) return color;
    }
    return [255, 255, 255];
  };
  const texts = document.createTreeWalker(document.body, NodeFilter.SHOW_TEXT);
  let least = [21, ''];
  while (texts.nextNode()) {
    const parent = texts.currentNode.parentElement;
    if (!texts.currentNode.data.trim() || parent.closest('script, noscript, [hidden]')) continue;
    const both = [channels(getComputedStyle(parent).color), behind(parent)].map(luminance);
    const contrast = (Math.max(...both) + 0.05) / (Math.min(...both) + 0.05);
    if (contrast < least[0]) least = [contrast, texts.currentNode.data];
  }
  return least;
})()";

fn schemes(browser: &mut Browser) -> Result<()> {
    let server = serve();
    let mut backgrounds = Vec::new();
    for dark in [false, true] {
        open(browser, &server, 1280, dark)?;
        let least = browser.evaluate(CONTRAST)?;
        ensure!(least[0].as_f64() >= Some(4.5), "dark: {dark}: {least}");
        let background = "getComputedStyle(document.body).backgroundColor";
        backgrounds.push(browser.evaluate(background)?);
    }
    ensure!(backgrounds[0] != backgrounds[1], "both are {backgrounds:?}");
    Ok(())
}

/// Script that returns what is missing for users of a screen reader.
const MISSING: &str = "
(() => {
  const all = (selector) => [...document.querySelectorAll(selector)];
  const missing = [];
  for (const one of ['h1', 'main', 'header', 'footer', 'nav', '[role=status]']) {
    if (all(one).length !== 1) missing.push(`${all(one).length} × ${one}`);
  }
  const named = (node) => node.textContent.trim() || node.getAttribute('aria-label') || node.closest('label');
  missing.push(...all('th:not([scope])').map((node) => `scope of ${node.textContent}`));
  missing.push(...all('button, select, input, a').filter((node) => !node.hidden && !named(node)).map((node) => node.outerHTML));
  missing.push(...all('svg:not([aria-hidden]):not([aria-label])').map((node) => node.outerHTML));
  missing.push(...all('section, [role=region]').filter((node) =>
    !document.getElementById(node.getAttribute('aria-labelledby'))).map((node) => node.outerHTML));
  const ids = all('[id]').map((node) => node.id);
  missing.push(...ids.filter((id, at) => ids.indexOf(id) !== at).map((id) => `two of ${id}`));
  let level = 1;
  for (const heading of all('h1, h2, h3, h4')) {
    const next = Number(heading.tagName[1]);
    if (next > level + 1) missing.push(`a level above ${heading.textContent}`);
    level = next;
  }
  if (!document.documentElement.lang || !document.title) missing.push('language or title');
  return missing;
})()";

fn structure(browser: &mut Browser) -> Result<()> {
    let server = serve();
    open(browser, &server, 1280, false)?;
    let missing: Value = browser.evaluate(MISSING)?;
    ensure!(missing == json!([]), "{missing}");
    // The keyboard focus stays where it is when the counts are read again.
    let button = "document.querySelector('#groups th[data-column=closed] button')";
    browser.evaluate(&format!("{button}.focus()"))?;
    let readings = browser.evaluate("Number(document.documentElement.dataset.readings)")?;
    browser.wait_for(&format!(
        "document.documentElement.dataset.readings > {readings}"
    ))?;
    let stays = browser.evaluate(&format!("document.activeElement === {button}"))?;
    ensure!(stays == json!(true), "the focus is lost");
    Ok(())
}
