// The JavaScript client with a kind of its own: definition, objects, informer, watch, every sort of patch, status and scale, exec.
// usage: node program.mjs NAMESPACE POD     Prints one JSON object of what it saw.
import { PassThrough } from 'node:stream';
import * as k8s from '@kubernetes/client-node';

const [namespace, pod] = process.argv.slice(2);
const group = 'music.example.com', version = 'v1', plural = 'songs';
const config = new k8s.KubeConfig();
config.loadFromDefault();
const objects = k8s.KubernetesObjectApi.makeApiClient(config);
const custom = config.makeApiClient(k8s.CustomObjectsApi);
const definitions = config.makeApiClient(k8s.ApiextensionsV1Api);
const where = { group, version, plural, namespace };
const path = `/apis/${group}/${version}/namespaces/${namespace}/${plural}`;
const seen = {};

// The client's own types have names of their own for what JavaScript reserves.
const schema = {
  type: 'object', properties: {
    spec: { type: 'object', properties: {
      notes: { type: 'array', items: { type: 'string' }, x_kubernetes_list_type: 'set' },
      volume: { type: 'integer', _default: 5, maximum: 11 }, verses: { type: 'integer' } } },
    status: { type: 'object', properties: { played: { type: 'integer' }, verses: { type: 'integer' } } } } };
await objects.create({
  apiVersion: 'apiextensions.k8s.io/v1', kind: 'CustomResourceDefinition', metadata: { name: `${plural}.${group}` },
  spec: { group, scope: 'Namespaced', names: { plural, singular: 'song', kind: 'Song' }, versions: [{ name: version, served: true, storage: true,
    subresources: { status: {}, scale: { specReplicasPath: '.spec.verses', statusReplicasPath: '.status.verses' } },
    schema: { openAPIV3Schema: schema } }] } });
await until('established', async () => {
  const { status } = await definitions.readCustomResourceDefinition({ name: `${plural}.${group}` });
  return status?.conditions?.some((c) => c.type === 'Established' && c.status === 'True');
});

const informed = [];
const informer = k8s.makeInformer(config, path, () => custom.listNamespacedCustomObject(where));
for (const verb of ['add', 'update', 'delete']) informer.on(verb, (song) => informed.push(`${verb} ${song.metadata.name}`));
informer.on('error', (error) => { if (error && error.name !== 'AbortError') fail('informer', error); });
await informer.start();

const song = (spec) => ({ apiVersion: `${group}/${version}`, kind: 'Song', metadata: { name: 'first', namespace }, spec });
const made = await objects.create(song({ notes: ['c'] }));
seen.defaulted = made.spec.volume;
try {
  await objects.create(song({ volume: 12 }));
} catch (error) {
  seen.conflict = error.code;
}
try {
  await objects.create({ ...song({ volume: 12 }), metadata: { name: 'loud', namespace } });
} catch (error) {
  seen.refused = [error.code, JSON.parse(error.body).details.causes[0]];
}

const typed = (type) => k8s.setHeaderOptions('Content-Type', type);
const name = 'first';
const merged = await custom.patchNamespacedCustomObject({ ...where, name, body: { spec: { volume: 7 } } }, typed(k8s.PatchStrategy.MergePatch));
const jsoned = await custom.patchNamespacedCustomObject(
  { ...where, name, body: [{ op: 'test', path: '/spec/volume', value: 7 }, { op: 'add', path: '/spec/notes/-', value: 'd' }] },
  typed(k8s.PatchStrategy.JsonPatch));
const applied = await objects.patch({ ...song({ notes: ['e'] }) }, undefined, undefined, 'singer', true, k8s.PatchStrategy.ServerSideApply);
seen.patched = [merged.spec.volume, jsoned.spec.notes, [...applied.spec.notes].sort()];
try {
  await custom.patchNamespacedCustomObject({ ...where, name, body: { spec: { volume: 1 } } }, typed(k8s.PatchStrategy.StrategicMergePatch));
} catch (error) {
  seen.strategic = error.code;
}
await custom.patchNamespacedCustomObjectStatus({ ...where, name, body: { status: { played: 3 }, spec: { volume: 1 } } }, typed(k8s.PatchStrategy.MergePatch));
const scale = await custom.patchNamespacedCustomObjectScale({ ...where, name, body: { spec: { replicas: 4 } } }, typed(k8s.PatchStrategy.MergePatch));
const now = await custom.getNamespacedCustomObject({ ...where, name });
seen.subresources = [now.status.played, now.spec.volume, scale.spec.replicas, now.spec.verses];

// From a version that is known, every change since, then the server's end of it.
const phases = [];
await new Promise((resolve, reject) => {
  new k8s.Watch(config).watch(path, { resourceVersion: made.metadata.resourceVersion, allowWatchBookmarks: true, timeoutSeconds: 2 },
    (phase, object) => { if (phase !== 'BOOKMARK') phases.push(`${phase} ${object.metadata.name}`); },
    (error) => (error && error.name !== 'AbortError' && !/premature|aborted/i.test(String(error)) ? reject(error) : resolve()));
});
seen.watched = phases;

await objects.delete(song());
await until('informed of the end', () => informed.includes('delete first'));
await informer.stop();
seen.informed = [informed[0], informed.at(-1), informed.filter((line) => line.startsWith('update')).length];

const out = new PassThrough();
let text = '';
out.on('data', (chunk) => { text += chunk; });
seen.exec = await new Promise((resolve, reject) => {
  new k8s.Exec(config).exec(namespace, pod, 'c', ['sh', '-c', 'cat; exit 3'], out, null, PassThrough.from(['from afar']), false,
    (status) => resolve([text, status.reason, status.details.causes[0].message])).catch(reject);
});

await definitions.deleteCustomResourceDefinition({ name: `${plural}.${group}` });
console.log(JSON.stringify(seen));
process.exit(0);

function fail(what, error) {
  console.error(what, error);
  process.exit(1);
}

async function until(what, check) {
  for (const end = Date.now() + 60_000; !(await check()); await new Promise((resolve) => setTimeout(resolve, 100))) {
    if (Date.now() > end) fail(what, 'did not come');
  }
}
