// The search runs in a worker, which browsers refuse to pages that are opened from a folder: there it
// runs in a hidden frame. Named so that mkdocs-material's offline plugin fetches no shim of its own.
if (location.protocol === "file:") {
  window.Worker = class extends EventTarget {
    constructor(url) {
      super();
      this.waiting = [];
      this.frame = document.createElement("iframe");
      this.frame.hidden = true;
      const worker = this;
      this.frame.addEventListener("load", () => {
        const inner = worker.frame.contentWindow;
        inner.postMessage = (data) =>
          worker.dispatchEvent(new MessageEvent("message", { data }));
        const script = inner.document.createElement("script");
        script.src = new URL(url, document.baseURI).href;
        script.addEventListener("load", () => {
          const waiting = worker.waiting;
          worker.waiting = null;
          waiting.forEach((data) => worker.postMessage(data));
        });
        inner.document.body.append(script);
      }, { once: true });
      document.documentElement.append(this.frame);
    }
    postMessage(data) {
      if (this.waiting) this.waiting.push(data);
      else this.frame.contentWindow.dispatchEvent(new MessageEvent("message", { data }));
    }
    terminate() { this.frame.remove(); }
  };
}
