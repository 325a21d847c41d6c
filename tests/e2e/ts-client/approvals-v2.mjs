// `approvals.mjs` with version 2 of the SDK, which speaks 2026-07-28 where the server does, or shakes hands if it is told to.
import { Client } from "@modelcontextprotocol/client";
import { StdioClientTransport } from "@modelcontextprotocol/client/stdio";

import { carryOut, onComplete, onPrompt, plan } from "./approvals.mjs";

const capabilities = plan.elicitation ? { elicitation: plan.elicitation } : {};
const client = new Client(
  { name: "silo-ts-v2", version: "1.0.0" },
  { capabilities, versionNegotiation: { mode: plan.mode } },
);
if (plan.elicitation) client.setRequestHandler("elicitation/create", onPrompt);
client.setNotificationHandler("notifications/elicitation/complete", onComplete);
await client.connect(new StdioClientTransport({ command: plan.command, args: plan.args, stderr: "inherit" }));
await carryOut((params, options) => client.callTool(params, options), () => client.getNegotiatedProtocolVersion());
await client.close();
