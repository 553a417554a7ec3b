// ReDoc over our own document; its script comes with a Python package and is served from here.

// ReDoc would show its maker's logo, which it loads from the network. Nothing here is loaded from elsewhere, so that
// an image of another host's stays without a source, whichever of the two ways it is given one.
const image = HTMLImageElement.prototype;
const { setAttribute } = image;
const source = Object.getOwnPropertyDescriptor(image, "src");

function isForeign(url) {
  const { host, protocol } = new URL(url, document.baseURI);
  return protocol.startsWith("http") && host !== location.host;
}

image.setAttribute = function (name, value) {
  if (name === "src" && isForeign(value)) {
    this.hidden = true;
  } else {
    setAttribute.call(this, name, value);
  }
};

Object.defineProperty(image, "src", {
  ...source,
  set(value) {
    this.setAttribute("src", value);
  },
});

const fontFamily = "system-ui, sans-serif";

window.Redoc.init(
  "openapi.json",
  { theme: { typography: { fontFamily, headings: { fontFamily } } } },
  document.getElementById("document"),
);
