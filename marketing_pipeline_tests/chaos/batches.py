"""Small pieces of work that reach every provider class, and the operator's files they run by.

Spans are scaled down, as in campaigns/demo.yaml: a trial waits for a lease and a settle delay.
A provider's `{suffix}` makes it this bench's own, for the gate is shared.
"""

from marketing_pipeline_tests import pipeline, plain_hook
from marketing_pipeline_tests.chaos.bench import Batch

_HEAD = """version: 1
sender: {email: hello@example.com, name: Example}
delivery: {linger: 60s, lease_margin: 200ms}
templates:
  welcome: {subject: Welcome, html: templates/welcome.html}
  news: {subject: What is new, html: templates/news.html}
audiences:
  newcomers: {sources: [demo]}
campaigns:
  news: {audience: newcomers, template: news}
"""
# Limit and breaker are far away: these trials are about what is done twice. The gate remembers
# the calls of many trials, and of those that are cut off it would make a provider in trouble.
_USUAL = (
    "limits: [{calls: 200, per: 1s}], call_timeout: 400ms, connections: 4, "
    "breaker: {failures: 1000, error_share: 1, open_for: 100ms}"
)
_SITE = f"""  site_{{suffix}}:
    {{adapter: webhook, url: "https://www.example.com/hook", settle_delay: 200ms, {_USUAL}}}"""

_KEYED = f"""{_HEAD}
providers:
  crm_{{suffix}}: {{adapter: hubspot, token: {{env: TOKEN}}, settle_delay: 200ms, {_USUAL}}}
  mail_{{suffix}}: {{adapter: resend, api_key: {{env: TOKEN}}, settle_delay: 200ms, {_USUAL}}}
{_SITE}
routes:
  LEAD_CAPTURE: [{{step: contact, provider: crm_{{suffix}}, properties: {{firstname: first_name}}}}]
  CAMPAIGN_TRIGGER: [{{step: mail, provider: mail_{{suffix}}}}]
  CONTENT_PUBLISH: [{{step: post, provider: site_{{suffix}}}}]
"""
_SEARCHED = f"""{_HEAD}
providers:
  mailgun_{{suffix}}:
    {{adapter: mailgun, api_key: {{env: TOKEN}}, domain: mg.example.com, region: us,
     settle_delay: 600ms, horizon: 5m, {_USUAL}}}
{_SITE}
routes:
  LEAD_CAPTURE: [{{step: welcome, provider: mailgun_{{suffix}}, template: welcome}}]
  CAMPAIGN_TRIGGER: [{{step: mail, provider: mailgun_{{suffix}}, priority: bulk}}]
  CONTENT_PUBLISH: [{{step: post, provider: site_{{suffix}}}}]
"""

_BLIND = (
    _KEYED.replace("site_", f"{plain_hook.NAME}_")
    .replace("adapter: webhook,", "adapter: webhook, deduplicates: false,")
    .replace("connections: 4", "connections: 2")
)

FORGETTING = Batch(  # Resend, whose key lives for less than a second
    name="forgetting",
    file=_KEYED.replace("adapter: resend,", "adapter: resend, key_life: 700ms,"),
    events=lambda: [pipeline.lead(1), pipeline.campaign("news", "c1")],
    effects=2,
    holds=True,
)
KEYED = Batch(  # HubSpot's upsert, Resend's key whose payload is compared, a webhook's key
    name="keyed",
    file=_KEYED,
    events=lambda: [
        pipeline.lead(1),
        pipeline.lead(2),
        pipeline.post(1),
        pipeline.campaign("news", "c1"),
    ],
    effects=5,
)
SEARCHED = Batch(  # Mailgun's search, which sees a mail half a second late
    name="searched",
    file=_SEARCHED,
    events=lambda: [pipeline.lead(1), pipeline.campaign("news", "c1")],
    effects=2,
)
CHUNKED = Batch(  # a campaign whose plan takes more than one transaction
    name="chunked",
    file=_SEARCHED,
    events=lambda: [pipeline.lead(1), pipeline.lead(2), pipeline.campaign("news", "c1")],
    effects=4,
    variation="writes plans in small chunks",
    about=(
        "chunk",
        "Writes planned effects",
        "Plans whose effects",
        "Locks events of which",
    ),
)
BLIND = Batch(  # a hook that keeps no keys; no more than two of its posts are in flight at once
    name="blind",
    file=_BLIND,
    events=lambda: [pipeline.post(number) for number in range(4)],
    effects=4,
    holds=True,
)
ALERTS = Batch(  # the same, and who reads it would rather read twice than not at all
    name="alerts",
    file=_BLIND.replace("deduplicates: false,", "deduplicates: false, at_least_once: true,"),
    events=BLIND.events,
    effects=BLIND.effects,
)
ALL = (KEYED, SEARCHED, CHUNKED, BLIND)
