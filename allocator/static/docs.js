// Shows the OpenAPI document with Swagger UI, in the colours that the reader's system asks for.
const dark = window.matchMedia("(prefers-color-scheme: dark)");
const dye = () => document.documentElement.classList.toggle("dark-mode", dark.matches);
dye();
dark.addEventListener("change", dye);
window.addEventListener("DOMContentLoaded", () => {
  window.SwaggerUIBundle({ url: "/openapi.json", dom_id: "#docs", deepLinking: true, validatorUrl: null });
});
