/** The page that `npm start` serves. One file, nothing loaded from elsewhere. */
export const PAGE = `<!doctype html>
<html lang="en">
<meta charset="utf-8">
<meta name="viewport" content="width=device-width">
<title>Served by Arrakis</title>
<style>
  body { font: 1.1rem/1.6 system-ui, sans-serif; max-width: 40rem; margin: 3rem auto; padding: 0 1rem;
    color: #2a2119; background: #f7efe2; }
  h1 { font-weight: 600; letter-spacing: .02em; }
  pre { background: #fffaf1; border: 1px solid #d9c7a7; padding: 1rem; overflow: auto; font-size: .8rem; line-height: 1.4; }
  @media (prefers-color-scheme: dark) {
    body { color: #e9dcc6; background: #201a14; }
    pre { background: #2a221a; border-color: #55462f; }
  }
</style>
<h1>The operating system is the control plane.</h1>
<p>This page came from a TypeScript program that owns a virtual network card. It did TCP itself: between the
program and its card there was no system call and no copy by anybody else.</p>
<pre>
   web server (user nobody)                         control plane
 ┌───────────────────────────┐                    ┌──────────────┐
 │ http · Extaris (TCP/IP)   │◄────── once ──────►│   arrakisd   │
 └────────────┬──────────────┘                    └──────┬───────┘
              │ rings in memory                          │ attach, filter, revoke
 ─────────────┼──────────── data plane ──────────────────┼───────
              ▼                                          ▼
        software NIC ── TAP ── kernel ── curl, your browser
</pre>
<p>Look at it from the other side: <code>npm run --silent arrakis -- ls</code>, <code>top</code>, <code>capture</code>.</p>
</html>
`;
