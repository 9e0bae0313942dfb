"""One page that shows a mail as inboxes do: on a desk, on a phone, and as plain text."""

from html import escape
from string import Template as Page

from marketing_pipeline.campaigns.rendering import Parts


def page(template: str, sender: str, mail: Parts) -> str:
    """Self-contained; the mail is in frames that run no scripts and open nothing."""
    return _PAGE.substitute(
        template=escape(template),
        sender=escape(sender),
        subject=escape(mail.subject),
        preheader=escape(mail.preheader or "none: inboxes show how the mail begins"),
        said="" if mail.preheader else "unsaid",
        mail=escape(mail.html),
        text=escape(mail.text),
    )


_PAGE = Page("""<!doctype html>
<html lang="en">
<head>
<meta charset="utf-8">
<meta name="viewport" content="width=device-width, initial-scale=1">
<meta name="referrer" content="no-referrer">
<title>$template: $subject</title>
<style>
  body { margin: 0; padding: 2rem; background: #eceef1; color: #1d2126;
         font: 15px/1.5 system-ui, sans-serif; }
  main { max-width: 1160px; margin: 0 auto; }
  dl { display: grid; grid-template-columns: max-content 1fr; gap: .25rem 1.25rem; margin: 0 0 2rem;
       padding: 1rem 1.5rem; background: #fff; border-radius: 8px; }
  dt { color: #68717d; }
  dd { margin: 0; overflow-wrap: anywhere; }
  .subject { font-weight: 600; }
  .unsaid, h2 span { color: #68717d; font-weight: 400; }
  .frames { display: flex; flex-wrap: wrap; gap: 1.5rem; }
  .desk { flex: 1 1 640px; min-width: 0; }
  .phone { flex: 0 0 375px; max-width: 100%; }
  h2 { margin: 0 0 .5rem; font-size: 15px; }
  iframe, pre { box-sizing: border-box; width: 100%; margin: 0; background: #fff;
                border: 1px solid #d4d8de; border-radius: 8px; }
  iframe { height: 720px; resize: vertical; }
  section { margin-bottom: 2rem; }
  pre { padding: 1rem 1.5rem; overflow-wrap: anywhere; white-space: pre-wrap;
        font: 14px/1.5 ui-monospace, monospace; }
</style>
</head>
<body>
<main>
<dl>
  <dt>Template</dt><dd>$template</dd>
  <dt>From</dt><dd>$sender</dd>
  <dt>Subject</dt><dd class="subject">$subject</dd>
  <dt>Preheader</dt><dd class="$said">$preheader</dd>
</dl>
<div class="frames">
  <section class="desk"><h2>Desk</h2>
    <iframe title="the mail on a desk" sandbox srcdoc="$mail"></iframe></section>
  <section class="phone"><h2>Phone <span>375 px</span></h2>
    <iframe title="the mail on a phone" sandbox srcdoc="$mail"></iframe></section>
</div>
<section><h2>Plain text</h2><pre>$text</pre></section>
</main>
</body>
</html>
""")
