// An independent MCP client (TypeScript SDK) for the tests: reads a plan on stdin, carries it out against a server that it
// starts itself, and prints one JSON report. It judges nothing; the test that made the plan does.
//
// Plan:   {"command": "...", "args": [...], "env": {...}, "steps": [step, ...]}
// Step:   {"do": "tools"} | {"do": "resources"} | {"do": "read", "uri": "..."} | {"do": "wait_tools_changed", "touch": "FILE"}
//         | {"do": "call", "name": "...", "arguments": {...}, "timeout_ms": 1000, "abort_on_progress": true}
// Report: {"server": {...}, "capabilities": {...}, "instructions": "...", "outcomes": [...], "tools_changed": 0}
import { mkdirSync, symlinkSync } from "node:fs";
import { dirname } from "node:path";
import process from "node:process";
import { text } from "node:stream/consumers";

import { Client } from "@modelcontextprotocol/sdk/client/index.js";
import { StdioClientTransport } from "@modelcontextprotocol/sdk/client/stdio.js";
import { CallToolResultSchema, ToolListChangedNotificationSchema } from "@modelcontextprotocol/sdk/types.js";

const plan = JSON.parse(await text(process.stdin));
const client = new Client({ name: "silo-ts-client", version: "1.0.0" });

let toolsChanged = 0;
let onToolsChanged = () => {};
client.setNotificationHandler(ToolListChangedNotificationSchema, () => {
  toolsChanged += 1;
  onToolsChanged();
});

const transport = new StdioClientTransport({
  command: plan.command,
  args: plan.args,
  env: { ...process.env, ...plan.env },
  stderr: "inherit",
});
await client.connect(transport);

async function allPages(ask, key) {
  const found = [];
  let cursor;
  do {
    const page = await ask({ cursor });
    found.push(...page[key]);
    cursor = page.nextCursor;
  } while (cursor !== undefined);
  return found;
}

const actions = {
  tools: () => allPages((params) => client.listTools(params), "tools"),
  resources: () => allPages((params) => client.listResources(params), "resources"),
  read: (step) => client.readResource({ uri: step.uri }),
  async call(step) {
    const progress = [];
    const abort = new AbortController();
    const result = await client
      .callTool({ name: step.name, arguments: step.arguments }, CallToolResultSchema, {
        timeout: step.timeout_ms ?? 60_000,
        signal: abort.signal,
        onprogress: (report) => {
          progress.push(report);
          if (step.abort_on_progress) abort.abort("the test says so");
        },
      })
      .catch((error) => ({ thrown: String(error), code: error.code ?? null }));
    return { ...result, progress };
  },
  async wait_tools_changed(step) {
    const changed = new Promise((resolve) => {
      onToolsChanged = resolve;
    });
    // What installing a skill ends with: its link `current` appears.
    mkdirSync(dirname(step.touch), { recursive: true });
    symlinkSync("version", step.touch);
    await changed;
    return { changed: true };
  },
};

const outcomes = [];
for (const step of plan.steps) {
  try {
    outcomes.push(await actions[step.do](step));
  } catch (error) {
    outcomes.push({ thrown: String(error), code: error.code ?? null });
  }
}
const report = {
  server: client.getServerVersion(),
  capabilities: client.getServerCapabilities(),
  instructions: client.getInstructions(),
  outcomes,
  tools_changed: toolsChanged,
};
await client.close();
process.stdout.write(JSON.stringify(report) + "\n");
