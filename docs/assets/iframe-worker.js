// Browsers start no worker on a page that was opened from a folder; the search then runs in a hidden frame instead.
if (location.protocol === "file:") {
  window.Worker = class extends EventTarget {
    constructor(url) {
      super();
      this.frame = document.createElement("iframe");
      this.frame.hidden = true;
      document.body.append(this.frame);
      const inner = this.frame.contentWindow;
      inner.document.open();
      inner.document.write(`<!doctype html><body><script>
        importScripts = (...urls) => urls.reduce((done, url) => done.then(() => new Promise((ready) => {
          const script = document.createElement("script");
          script.src = url;
          script.onload = ready;
          document.body.append(script);
        })), Promise.resolve());
      <\/script></body>`);
      inner.document.close();
      // What the worker posts comes out of this object.
      inner.postMessage = (data) => {
        const message = new MessageEvent("message", { data });
        this.dispatchEvent(message);
        if (this.onmessage) this.onmessage(message);
      };
      this.ready = new Promise((ready) => {
        const script = inner.document.createElement("script");
        script.src = url;
        script.onload = ready;
        inner.document.body.append(script);
      });
    }
    postMessage(data) {
      const inner = this.frame.contentWindow;
      this.ready.then(() => inner.dispatchEvent(new inner.MessageEvent("message", { data })));
    }
    terminate() {
      this.frame.remove();
    }
  };
}
