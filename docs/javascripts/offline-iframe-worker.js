// Search runs in a worker, which browsers refuse to a page that is opened from disk. An invisible
// frame runs the worker's script there instead.
if (location.protocol === "file:") {
  window.Worker = class extends EventTarget {
    constructor(address) {
      super();
      const frame = document.createElement("iframe");
      frame.hidden = true;
      document.documentElement.append(frame);
      const inside = frame.contentWindow;
      inside.postMessage = (data) => this.dispatchEvent(new MessageEvent("message", { data }));
      this.started = new Promise((started) => {
        const script = inside.document.createElement("script");
        script.src = new URL(address, location);
        script.onload = () => started(inside);
        inside.document.documentElement.append(script);
      });
    }

    postMessage(data) {
      this.started.then((inside) => inside.dispatchEvent(new MessageEvent("message", { data })));
    }

    terminate() {}
  };
}
