import * as sdk from "/thumbwheel.js";

window.sdk = sdk;
window.refusedByPolicy = [];
addEventListener("securitypolicyviolation", (event) => window.refusedByPolicy.push(event.violatedDirective));
