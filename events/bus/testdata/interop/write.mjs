// Stores one event, made by another implementation.
// node write.mjs <url> binary|structured <nats subject> <id> <source> <type> <subject> <data>
import { jetstream } from "@nats-io/jetstream";
import { connect, headers } from "@nats-io/transport-node";
import { CloudEvent, HTTP } from "cloudevents";

const [url, mode, address, id, source, type, subject, data] = process.argv.slice(2);
const event = new CloudEvent({ id, source, type, subject, datacontenttype: "application/json", data: JSON.parse(data) });
const message = mode === "structured" ? HTTP.structured(event) : HTTP.binary(event);

const out = headers();
for (const [name, value] of Object.entries(message.headers)) {
  if (name === "content-type" && mode === "binary") {
    out.set("ce-datacontenttype", value); // as the NATS binding says
  } else {
    out.set(name, name.startsWith("ce-") ? encodeURI(String(value)) : String(value));
  }
}
const connection = await connect({ servers: url });
await jetstream(connection).publish(address, message.body, { headers: out });
await connection.close();
