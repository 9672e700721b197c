// Signs webhooks with the libraries of those who send them: one request a line on stdin, one answer on stdout.
//
//     node signers.mjs NODE_MODULES_OF_SVIX NODE_MODULES_OF_OCTOKIT NODE_MODULES_OF_STRIPE
//
//     {"signer": NAME, "secret": TEXT, "id": TEXT, "timestamp": SECONDS, "body": BASE64}
//     {"headers": {NAME: VALUE}}
//
// `svix`, `octokit` and `stripe` are npm's packages of their senders, and sign text. `ed25519` is Node's own, as Standard
// Webhooks describes it; its secret is the private key of 32 bytes in Base64, and its answer has the public one too.

import { createPrivateKey, createPublicKey, sign as signWith } from "node:crypto";
import { createRequire } from "node:module";
import { createInterface } from "node:readline";
import { pathToFileURL } from "node:url";

const [svixModules, octokitModules, stripeModules] = process.argv.slice(2);
const { Webhook } = createRequire(`${svixModules}/`)("svix");
const methods = `${octokitModules}/@octokit/webhooks-methods/dist-node/index.js`;
const { sign } = await import(pathToFileURL(methods).href);
const Stripe = createRequire(`${stripeModules}/`)("stripe");

// The form of RFC 8410 around a private key of 32 bytes.
const PKCS8 = Buffer.from("302e020100300506032b657004220420", "hex");

const standard = (family, one, signature) => ({
  [`${family}-id`]: one.id,
  [`${family}-timestamp`]: `${one.timestamp}`,
  [`${family}-signature`]: signature,
});

const signers = {
  svix: (one, body) => {
    const at = new Date(one.timestamp * 1000);
    return standard("svix", one, new Webhook(one.secret).sign(one.id, at, body.toString()));
  },
  octokit: async (one, body) => ({
    "X-GitHub-Event": "push",
    "X-GitHub-Delivery": one.id,
    "X-Hub-Signature-256": await sign(one.secret, body.toString()),
  }),
  stripe: (one, body) => ({
    "Stripe-Signature": Stripe.webhooks.generateTestHeaderString({
      payload: body.toString(),
      secret: one.secret,
      timestamp: one.timestamp,
    }),
  }),
  ed25519: (one, body) => {
    const der = Buffer.concat([PKCS8, Buffer.from(one.secret, "base64")]);
    const key = createPrivateKey({ key: der, format: "der", type: "pkcs8" });
    const message = Buffer.concat([Buffer.from(`${one.id}.${one.timestamp}.`), body]);
    const known = createPublicKey(key).export({ format: "der", type: "spki" }).subarray(-32);
    return {
      ...standard("webhook", one, `v1a,${signWith(null, message, key).toString("base64")}`),
      "X-Public-Key": known.toString("base64"),
    };
  },
};

for await (const line of createInterface({ input: process.stdin })) {
  const one = JSON.parse(line);
  const headers = await signers[one.signer](one, Buffer.from(one.body, "base64"));
  console.log(JSON.stringify({ headers }));
}
