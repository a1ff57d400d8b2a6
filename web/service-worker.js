/** Keeps the page for use offline. Each release has a cache of its own, so a page never sees parts of two. */

importScripts("release.js");

const PREFIX = "captcha-detector-";

self.addEventListener("install", (event) => event.waitUntil(keepEverything()));
self.addEventListener("activate", (event) => event.waitUntil(forgetOldReleases()));
self.addEventListener("fetch", (event) => {
  if (event.request.method === "GET") event.respondWith(answer(event.request));
});

/** Fetches what the page itself has not kept already: it has downloaded the large files. */
async function keepEverything() {
  const cache = await caches.open(RELEASE.name);
  for (const file of ["./", "release.js", ...RELEASE.offline]) {
    if (!(await cache.match(file))) await cache.add(new Request(file, { cache: "no-cache" }));
  }
}

async function forgetOldReleases() {
  const names = await caches.keys();
  await Promise.all(
    names.filter((name) => name.startsWith(PREFIX) && name !== RELEASE.name).map((name) => caches.delete(name)),
  );
}

async function answer(request) {
  const cache = await caches.open(RELEASE.name);
  return (await cache.match(request, { ignoreSearch: true })) ?? fetch(request);
}
