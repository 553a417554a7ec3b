// ReDoc over our own document; its script comes with a Python package and is served from here.

window.Redoc.init("openapi.json", { hideDownloadButton: false, disableSearch: false }, document.getElementById("document"));
