// Asked by test_web_page.py of every view: is anything outside of the window, is any text hard to read?

/** Controls that stand beyond the window's sides, save in parts that scroll by themselves. */
function outside() {
  const controls = [...document.querySelectorAll("button, a.button, select, input:not([type=file])")];
  const lost = controls.filter((one) => {
    const box = one.getBoundingClientRect();
    return box.width && !one.closest(".strip, .scroll, .spaces, .tools") && (box.right > innerWidth + 1 || box.left < -1);
  });
  return lost.map((one) => one.textContent || one.outerHTML);
}

/** Texts with less than 4.5 : 1 against the ground behind them (WCAG AA). */
function poorContrast() {
  const pen = new OffscreenCanvas(1, 1).getContext("2d", { willReadFrequently: true });
  const rgba = (colour) => {
    pen.clearRect(0, 0, 1, 1);
    pen.fillStyle = colour;
    pen.fillRect(0, 0, 1, 1);
    return [...pen.getImageData(0, 0, 1, 1).data];
  };
  const luminance = (colour) => {
    const linear = rgba(colour).map((value) => (value / 255 <= 0.03928 ? value / 255 / 12.92 : ((value / 255 + 0.055) / 1.055) ** 2.4));
    return 0.2126 * linear[0] + 0.7152 * linear[1] + 0.0722 * linear[2];
  };
  const ground = (one) => {
    for (; one; one = one.parentElement) {
      const colour = getComputedStyle(one).backgroundColor;
      if (rgba(colour)[3] > 250) return colour;
    }
    return "white";
  };
  const poor = [];
  for (const one of document.querySelectorAll("body *")) {
    const own = [...one.childNodes].some((node) => node.nodeType === Node.TEXT_NODE && node.data.trim());
    if (!own || !one.getClientRects().length || one.matches(":disabled, .quiet, noscript") || one.closest(".shot, .frame")) continue;
    const [lighter, darker] = [luminance(getComputedStyle(one).color), luminance(ground(one))].sort((a, b) => b - a);
    const ratio = (lighter + 0.05) / (darker + 0.05);
    if (ratio < 4.5) poor.push(`${one.className || one.tagName} ${ratio.toFixed(2)} ${one.textContent.slice(0, 30)}`);
  }
  return poor;
}
