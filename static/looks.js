// looks.js - the chosen theme and language before anything is drawn, so that nothing flashes and the texts are on their way
{
    const theme = localStorage.getItem("theme");
    if (theme) document.documentElement.dataset.theme = theme;

    // To add a language: its code here, its name in i18n.js, its texts in texts/CODE.js.
    const codes = ["en", "ko"];
    const wanted = [localStorage.getItem("language"), ...navigator.languages].map(code => code?.slice(0, 2));
    document.documentElement.lang = wanted.find(code => codes.includes(code)) ?? codes[0];

    const texts = document.createElement("link");
    texts.rel = "modulepreload";
    texts.href = new URL(`texts/${document.documentElement.lang}.js`, document.currentScript.src);
    document.head.append(texts);

    // The first format of Intl takes 20 ms, the others next to nothing; here there is nothing else to do yet.
    new Intl.DateTimeFormat(document.documentElement.lang, { dateStyle: "medium" });
}
