// `approvals.mjs` with version 1 of the SDK, which shakes hands: what most deployed clients are built with.
import { Client } from "@modelcontextprotocol/sdk/client/index.js";
import { StdioClientTransport } from "@modelcontextprotocol/sdk/client/stdio.js";
import {
  CallToolResultSchema,
  ElicitationCompleteNotificationSchema,
  ElicitRequestSchema,
} from "@modelcontextprotocol/sdk/types.js";

import { carryOut, onComplete, onPrompt, plan } from "./approvals.mjs";

const capabilities = plan.elicitation ? { elicitation: plan.elicitation } : {};
const client = new Client({ name: "silo-ts-v1", version: "1.0.0" }, { capabilities });
if (plan.elicitation) client.setRequestHandler(ElicitRequestSchema, onPrompt);
client.setNotificationHandler(ElicitationCompleteNotificationSchema, onComplete);
const transport = new StdioClientTransport({ command: plan.command, args: plan.args, stderr: "inherit" });
let protocol;
transport.setProtocolVersion = (version) => (protocol = version);
await client.connect(transport);
await carryOut((params, options) => client.callTool(params, CallToolResultSchema, options), () => protocol);
await client.close();
