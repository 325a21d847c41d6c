// What the clients of both TypeScript SDKs do in the tests of approvals: carry out a plan, as the client and as its user. It judges
// nothing; the test that made the plan does.
//
// Plan:   {"command": "...", "args": [...], "answers": "FOLDER", "elicitation": {...} or null, "mode": "auto" or "legacy",
//          "steps": [step, ...]}
// Step:   {"do": "answer", "answer": "yes" or "no REASON"} | {"do": "call", "name": "...", "arguments": {...},
//          "action": what the user does at a prompt, "answer": what they answer on the page before that,
//          "answer_on_progress": the same, once progress tells the link, "abort_on": "prompt" or "progress"}
// Report: {"protocol": "...", "outcomes": [{...result, "prompts": [...], "progress": [...]}, ...], "completed": [...]}
import { writeFileSync } from "node:fs";
import { join } from "node:path";
import process from "node:process";
import { text } from "node:stream/consumers";

export const plan = JSON.parse(await text(process.stdin));

const LINK = /http:\/\/127\.0\.0\.1:9\/ask\/(\w+)/;
const completed = [];
let step, abort, prompts, progress, question;

function look(words) {
  question = LINK.exec(words ?? "")?.[1] ?? question;
}

function answer(words) {
  writeFileSync(join(plan.answers, question), `${words}\n`);
}

export function onPrompt({ params }) {
  prompts.push(params);
  look(`${params.url ?? ""} ${params.message}`);
  if (step.answer) answer(step.answer);
  if (step.abort_on === "prompt") abort.abort("the test says so");
  return params.mode === "url" ? { action: step.action } : { action: step.action, content: {} };
}

export function onComplete({ params }) {
  completed.push(params.elicitationId);
}

function onprogress(report) {
  progress.push(report);
  look(report.message);
  if (step.answer_on_progress) answer(step.answer_on_progress);
  if (step.abort_on === "progress") abort.abort("the test says so");
}

export async function carryOut(call, protocol) {
  const outcomes = [];
  for (step of plan.steps) {
    if (step.do === "answer") {
      answer(step.answer);
      continue;
    }
    [abort, prompts, progress] = [new AbortController(), [], []];
    const options = { signal: abort.signal, onprogress };
    const result = await call({ name: step.name, arguments: step.arguments }, options).catch((error) => ({
      thrown: String(error),
    }));
    look(JSON.stringify(result));
    outcomes.push({ ...result, prompts, progress });
  }
  process.stdout.write(JSON.stringify({ protocol: protocol(), outcomes, completed }) + "\n");
}
