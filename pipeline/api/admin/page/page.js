// The operator's page: reads `/admin/…` and shows it. Every text is set as text, never as markup: names, causes and
// image names come from strangers.

const content = document.querySelector("#content");
const connection = document.querySelector("#connection");
let stopLive = () => {};

// -- asking ------------------------------------------------------------------------------------------------------------

class Refused extends Error {}

async function request(path, options = {}) {
  const token = sessionStorage.getItem("token");
  const headers = token ? { authorization: `Bearer ${token}` } : {};
  const answer = await fetch(`/admin${path}`, { ...options, headers, cache: "no-store" });
  if (answer.status === 401) {
    await signIn((await answer.json()).error);
    return request(path, options);
  }
  if (!answer.ok) {
    const said = await answer.json().catch(() => ({}));
    throw new Refused(`${said.error ?? `HTTP ${answer.status}`} ${said.fix ?? ""}`);
  }
  return answer;
}

const get = async (path) => (await request(path)).json();

function signIn(why) {
  const dialog = document.querySelector("#sign-in");
  document.querySelector("#sign-in-error").textContent = sessionStorage.getItem("token") ? why : "";
  dialog.showModal();
  return new Promise((done) => {
    dialog.addEventListener("close", () => {
      sessionStorage.setItem("token", dialog.querySelector("input").value.trim());
      dialog.querySelector("input").value = "";
      done();
    }, { once: true });
  });
}

// -- drawing -----------------------------------------------------------------------------------------------------------

function make(tag, { text, cls, href, title } = {}, ...children) {
  const node = document.createElement(tag);
  if (text !== undefined && text !== null) node.textContent = text;
  if (cls) node.className = cls;
  if (href) node.href = href;
  if (title) node.title = title;
  node.append(...children.filter((child) => child !== null));
  return node;
}

const show = (...nodes) => content.replaceChildren(...nodes.filter((node) => node !== null));

function table(columns, rows, empty) {
  if (!rows.length) return make("p", { text: empty, cls: "faint" });
  const head = make("tr", {}, ...columns.map((name) => make("th", { text: name })));
  const body = rows.map((cells) => make("tr", {}, ...cells.map((cell) =>
    cell instanceof HTMLTableCellElement ? cell : make("td", { text: cell ?? "" }))));
  return make("div", { cls: "scroll" }, make("table", {}, make("thead", {}, head), make("tbody", {}, ...body)));
}

const number = (value) => make("td", { text: value ?? "–", cls: "number" });
const link = (kind, id, label) => make("td", { cls: "id" }, make("a", { text: label ?? id, href: `#/${kind}/${id}` }));

function facts(pairs) {
  const kept = Object.entries(pairs).filter(([, value]) => value !== null && value !== undefined && value !== "");
  return make("dl", {}, ...kept.flatMap(([name, value]) => [
    make("dt", { text: name }),
    value instanceof Node ? make("dd", {}, value) : make("dd", { text: value }),
  ]));
}

function age(seconds) {
  if (seconds === null || seconds === undefined) return "–";
  if (seconds < 120) return `${Math.max(0, Math.round(seconds))} s`;
  if (seconds < 7200) return `${Math.round(seconds / 60)} min`;
  return seconds < 172800 ? `${(seconds / 3600).toFixed(1)} h` : `${Math.round(seconds / 86400)} days`;
}

const now = () => Date.now() / 1000;
const native = (wei) => (wei === null ? null : `${(Number(wei) / 1e18).toPrecision(6)}`);
const rlc = (nrlc) => `${Number(nrlc) / 1e9}`;
const date = (at) => new Date(at * 1000).toISOString().replace("T", " ").slice(0, 19) + " UTC";

const taskTable = (tasks, empty) => table(
  ["task", "stage", "trust", "age", "workers", "waits for"],
  tasks.map((item) => [
    link("task", item.task_id), item.stage, number(item.trust), number(age(now() - item.matched_at)),
    number(item.workers), item.why,
  ]),
  empty,
);

// -- pages -------------------------------------------------------------------------------------------------------------

function drawStatus(found) {
  const work = found.work;
  const tile = (value, label) => make("div", { cls: "tile" }, make("b", { text: value ?? "–" }), make("span", { text: label }));
  const alerts = found.alerts.map((item) => make("li", {}, make("b", { text: `${item.part}: ` }), `${item.says}. ${item.fix}`));
  const machines = work ? Object.entries(work.machines).filter(([, count]) => count) : [];
  show(
    make("h1", { text: found.ok ? "The pool works." : "The pool needs you.", cls: found.ok ? "good" : "bad" }),
    alerts.length ? make("ul", { cls: "alerts" }, ...alerts) : null,
    make("div", { cls: "tiles" },
      tile(work?.open_tasks, "open tasks"),
      tile(work?.completed_last_hour, "completed in the last hour"),
      tile(work?.deals_last_hour, "deals in the last hour"),
      tile(found.head, found.behind_blocks ? `head, ${found.behind_blocks} blocks still to be read` : "head"),
      tile(native(found.gas_balance_wei), found.gas_for_tasks === null ? "gas" : `gas: ${found.gas_for_tasks} tasks`),
      tile(work?.transactions_open, "open transactions"),
    ),
    make("h2", { text: "Open tasks" }),
    table(["stage", "tasks", "oldest"], (work?.stages ?? []).filter((item) => item.count).map((item) =>
      [item.stage, number(item.count), number(age(item.oldest_seconds))]), "No task is open."),
    make("h2", { text: "Transactions, queues, stake" }),
    facts({
      lane: laneWords(found.lane),
      queues: queueWords(found.queues),
      stake: found.stake_free_nrlc === null ? null : `${rlc(found.stake_free_nrlc)} RLC free, ${rlc(found.stake_locked_nrlc)} RLC locked`,
    }),
    make("h2", { text: "Machines" }),
    table(["state", "machines"], machines.map(([state, count]) => [state, number(count)]), "No machine has signed in yet."),
    make("h2", { text: "Parts" }),
    table(["part", "how it is"], Object.entries(found.parts), "Nothing is known."),
    make("p", { cls: "faint", text: `workerpool ${found.workerpool} on chain ${found.chain_id}, scheduler ${found.scheduler}` }),
  );
}

function laneWords(lane) {
  if (!lane) return null;
  if (lane.halted ?? lane.waits) return `${lane.halted === null ? "waits" : "halted"}: ${lane.halted ?? lane.waits}`;
  return lane.oldest_seconds === null ? "nothing waits" : `the oldest transaction is ${age(lane.oldest_seconds)} old: ${lane.why}`;
}

function queueWords(queues) {
  if (!queues) return null;
  const held = queues.filter((item) => item.ready + item.unacknowledged);
  return held.map((item) => `${item.name} ${item.ready} + ${item.unacknowledged} in hand`).join(", ") || "empty";
}

async function live() {
  const stopped = new AbortController();
  stopLive = () => stopped.abort();
  while (!stopped.signal.aborted) {
    try {
      const reader = (await request("/live", { signal: stopped.signal })).body.pipeThrough(new TextDecoderStream()).getReader();
      connection.textContent = "live";
      let rest = "";
      for (;;) {
        const { value, done } = await reader.read();
        if (done) break;
        const events = (rest + value).split("\n\n");
        rest = events.pop();
        const last = events.pop();
        if (last !== undefined && !stopped.signal.aborted) drawStatus(JSON.parse(last.replace(/^data: /, "")));
      }
    } catch (error) {
      if (stopped.signal.aborted) break;
      connection.textContent = `${error.message} Trying again …`;
    }
    await new Promise((done) => setTimeout(done, 2000));
  }
  connection.textContent = "";
}

async function tasks() {
  const [open, over] = await Promise.all([get("/tasks?limit=500"), get("/tasks?limit=100&stage=COMPLETED&stage=FAILED")]);
  show(make("h1", { text: "Tasks" }), taskTable(open, "No task is open."), make("h2", { text: "Over" }), taskTable(over, "None yet."));
}

function timeline(found) {
  const blocks = new Map();
  for (const item of found.moments) {
    if (item.block === null) continue;
    const texts = blocks.get(item.block) ?? [];
    texts.push(item.what);
    blocks.set(item.block, texts);
  }
  const counted = (texts) => [...new Set(texts)].map((text) => {
    const count = texts.filter((other) => other === text).length;
    return make("div", { text: count > 1 ? `${text} × ${count}` : text });
  });
  return make("div", { cls: "timeline" }, ...[...blocks].map(([block, texts]) => make("div", { cls: "block" },
    make("b", { text: `+${block - found.matched_block}`, title: `block ${block}` }), ...counted(texts))));
}

async function task(id) {
  const found = await get(`/tasks/${id}`);
  show(
    make("h1", { text: `Task ${found.index} of its deal: ${found.stage}` }),
    found.why ? make("p", { text: found.why }) : null,
    timeline(found),
    facts({
      task: found.task_id,
      deal: make("a", { text: found.deal_id, href: `#/deal/${found.deal_id}` }),
      app: found.image,
      trust: found.trust,
      requester: found.requester,
      matched: `block ${found.matched_block}, ${date(found.matched_at)}`,
      "votes until": date(found.contribution_deadline),
      "over at": date(found.final_deadline),
      result: found.result,
    }),
    make("h2", { text: "Machines" }),
    table(["wallet", "machine", "state", "vote", "cause", "result"], found.replicates.map((item) => [
      link("worker", item.wallet), item.name, item.state, item.vote, item.cause, item.result_stored ? "stored" : "",
    ]), "No machine was given it yet."),
    make("h2", { text: "What happened" }),
    table(["block", "after", "what", "wallet", "transaction"], found.moments.map((item) => [
      number(item.block === null ? "" : `+${item.block - found.matched_block}`), number(age(item.at - found.matched_at)),
      item.what, item.wallet, make("td", { text: item.tx ?? "", cls: "id" }),
    ]), ""),
  );
}

async function deals() {
  const found = await get("/deals?limit=200");
  show(make("h1", { text: "Deals" }), table(["deal", "block", "state", "tasks", "open", "trust", "app", "why"], found.map((item) => [
    link("deal", item.deal_id), number(item.block), item.state, number(item.tasks), number(item.open_tasks),
    number(item.trust), item.image, item.why,
  ]), "No deal was matched on this workerpool yet."));
}

async function deal(id) {
  const found = await get(`/deals/${id}`);
  show(
    make("h1", { text: `Deal: ${found.tasks ?? "?"} tasks, ${found.open_tasks} open` }),
    facts({
      deal: found.deal_id, state: found.state, why: found.why, "matched in block": found.block, app: found.image,
      arguments: found.params, dataset: found.dataset, requester: found.requester, trust: found.trust,
      "a worker stakes": found.worker_stake_nrlc === null ? null : `${found.worker_stake_nrlc} nRLC`,
    }),
    make("h2", { text: "Tasks" }),
    taskTable(found.shown, "None is stored yet."),
  );
}

async function workers() {
  const found = await get("/workers");
  show(make("h1", { text: "Workers" }), table(
    ["wallet", "machine", "state", "slots", "right", "failed", "nRLC free", "heard of"],
    found.map((item) => [
      link("worker", item.wallet), item.name, item.state, number(`${item.busy_slots} of ${item.usable_slots}`),
      number(item.successes), number(item.failures), number(item.stake_nrlc), number(age(now() - item.seen_at)),
    ]),
    "No machine has signed in yet.",
  ));
}

async function worker(wallet) {
  const found = await get(`/workers/${wallet}`);
  show(
    make("h1", { text: `${found.name}: ${found.state}` }),
    ...found.says.map((text) => make("p", { text })),
    facts({
      wallet: found.wallet, Sluice: found.version, slots: `${found.busy_slots} of ${found.usable_slots} in use; it says it has ${found.slots}`,
      "right on chain": `${found.successes} times`, "failed in a row": found.failures || null, "stake free": `${found.stake_nrlc} nRLC`,
      gas: native(found.native_wei), "heard of": `${age(now() - found.seen_at)} ago`,
    }),
    make("h2", { text: "Its tasks" }),
    taskTable(found.tasks, "It has none."),
  );
}

async function queues() {
  const found = await get("/queues");
  show(make("h1", { text: "Queues" }), table(["queue", "ready", "in work", "readers"], found.map((item) => [
    item.machines === null ? item.name : `${item.machines} queues of machines`, number(item.ready), number(item.unacknowledged), number(item.consumers),
  ]), "No queue."));
}

async function money() {
  const [stake, days, kinds, offers] = await Promise.all([
    get("/stake"), get("/ledger?by=day"), get("/ledger?by=kind"), get("/orders"),
  ]);
  const { reconciled, forecast } = kinds;
  const sums = (lines, name, empty) => table([name, "earned, RLC", "rewards", "seized", "gas", "transactions"], lines.map((line) => [
    line.key, number(rlc(line.earned_nrlc)), number(rlc(line.reward_nrlc)), number(rlc(line.seize_nrlc)),
    number(native(line.gas_wei)), number(line.transactions),
  ]), empty);
  show(
    make("h1", { text: "Money" }),
    make("p", { text: `Compared with the chain: ${reconciled.says}` }),
    facts({
      "free stake": `${rlc(stake.free_nrlc)} RLC in the hub`,
      locked: `${rlc(stake.locked_nrlc)} RLC by deals`,
      "enough for": stake.tasks_paid_for === null ? null : `${stake.tasks_paid_for} more tasks of the last deal's price`,
      "gas in the wallet": native(stake.native_wei),
      "it lasts": stake.gas_says,
      "spent on gas in 24 h": native(stake.spend.spent_wei),
      "daily cap": stake.spend.cap_wei === null ? null : `${native(stake.spend.cap_wei)}, ${native(stake.spend.left_wei)} left`,
      "open deals will bring": forecast === null ? null
        : `${rlc(forecast.scheduler_nrlc)} RLC to the scheduler, ${rlc(forecast.workers_nrlc)} RLC to machines, for ${forecast.tasks} tasks`,
    }),
    make("h2", { text: "The last week, by day" }),
    sums(days.lines, "day", "Nothing was earned or spent."),
    make("h2", { text: "By kind" }),
    sums(kinds.lines, "kind", "Nothing was earned or spent."),
    make("h2", { text: "Orders" }),
    table(["order", "stage", "price, RLC", "left"], offers.orders.map((item) => [
      make("td", { text: item.order_hash, cls: "id" }), item.stage, number(rlc(item.price_nrlc)), number(`${item.remaining} of ${item.volume}`),
    ]), "None is offered."),
  );
}

async function search(id) {
  const found = await get(`/explain/${encodeURIComponent(id)}`);
  location.hash = `#/${found.kind}/${found.id}`;
}

const PAGES = { tasks, task, deals, deal, workers, worker, queues, money, search };

async function route() {
  stopLive();
  const [, name, id] = location.hash.split("/");
  document.title = name ? `Sluice: ${name}` : "Sluice";
  const page = PAGES[name];
  try {
    await (page ? page(decodeURIComponent(id ?? "")) : live());
  } catch (error) {
    show(make("h1", { text: "That cannot be shown.", cls: "bad" }), make("p", { text: error.message }));
  }
}

document.querySelector("#search").addEventListener("submit", (event) => {
  event.preventDefault();
  const id = new FormData(event.target).get("id").trim();
  if (id) location.hash = `#/search/${encodeURIComponent(id)}`;
});
addEventListener("hashchange", route);
route();
