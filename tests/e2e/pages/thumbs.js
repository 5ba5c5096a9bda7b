// As the guide tells people to do it. The test's page has the gateway and the token in its address.
import { mountThumbs } from "/thumbwheel.js";

const asked = new URLSearchParams(location.search);
window.refusedByPolicy = [];
addEventListener("securitypolicyviolation", (event) => window.refusedByPolicy.push(event.violatedDirective));
window.results = [];
mountThumbs(document.querySelector("#thumbs"), {
  url: asked.get("gateway"),
  token: asked.get("token"),
  onResult: (result) => window.results.push(result.status),
});
