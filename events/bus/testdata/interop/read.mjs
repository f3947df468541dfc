// Reads the newest event of a subject and writes it to standard output as JSON.
// node read.mjs <url> <stream> <subject>
import { jetstreamManager } from "@nats-io/jetstream";
import { connect } from "@nats-io/transport-node";
import { HTTP } from "cloudevents";

const [url, stream, subject] = process.argv.slice(2);
const connection = await connect({ servers: url });
const manager = await jetstreamManager(connection);
const message = await manager.streams.getMessage(stream, { last_by_subj: subject });

// cloudevents has no NATS binding; its HTTP binding has the same headers, but for the content type.
const headers = {};
for (const name of message.header.keys()) {
  headers[name.toLowerCase()] = decodeURIComponent(message.header.get(name));
}
headers["content-type"] = headers["ce-datacontenttype"];
delete headers["ce-datacontenttype"];
const event = HTTP.toEvent({ headers, body: message.string() });
event.validate();
process.stdout.write(JSON.stringify(event));
await connection.close();
