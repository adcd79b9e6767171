/** The place for the photo: choose it, take it, drop it or paste it. */
import {need} from './dom.js';

export const KINDS = ['image/jpeg', 'image/png', 'image/webp'];

export class PhotoInput {
  /** @param {HTMLElement} root @param {(file: File) => void} chosen */
  constructor(root, chosen) {
    this.image = /** @type {HTMLImageElement} */ (need(root, '.photo'));
    const drop = need(root, '.drop');
    for (const input of /** @type {NodeListOf<HTMLInputElement>} */ (root.querySelectorAll('input[type=file]'))) {
      input.addEventListener('change', () => {
        const file = input.files?.[0];
        input.value = ''; // the same file again is a change, too
        if (file) chosen(file);
      });
    }
    // The whole page takes drops: a file dropped beside the frame would replace the page.
    document.addEventListener('dragover', (e) => {
      if (!e.dataTransfer?.types.includes('Files')) return;
      e.preventDefault();
      drop.classList.add('over');
    });
    document.addEventListener('dragleave', (e) => {
      if (!e.relatedTarget) drop.classList.remove('over');
    });
    document.addEventListener('drop', (e) => {
      drop.classList.remove('over');
      const file = e.dataTransfer?.files[0];
      if (!file) return;
      e.preventDefault();
      chosen(file);
    });
    document.addEventListener('paste', (e) => {
      const file = e.clipboardData?.files[0];
      if (!file) return;
      e.preventDefault();
      chosen(file);
    });
  }

  /** Shows the photo; null shows none. @param {File | null} file */
  show(file) {
    this.image.hidden = true;
    this.image.removeAttribute('src');
    if (!file) return;
    const reader = new FileReader(); // the page's policy takes data: pictures, no blob: ones
    reader.addEventListener('load', () => {
      this.image.src = String(reader.result);
      this.image.hidden = false;
    });
    reader.readAsDataURL(file);
  }
}
