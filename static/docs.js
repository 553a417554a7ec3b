// Swagger UI over our own document; its script and style come with a Python package and are served from here.

window.SwaggerUIBundle({
  url: "openapi.json",
  domNode: document.getElementById("document"),
  deepLinking: true,
  displayRequestDuration: true,
  tryItOutEnabled: true,
  // No validator badge: it would send the document to somebody else's server.
  validatorUrl: null,
});
